-- How often a task was leased. Whoever leases it gets the next number, and says it with what they write.

alter table segmentation_results add column attempt integer not null default 1;
