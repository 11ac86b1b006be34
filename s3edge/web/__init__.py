"""HTTP once, for every door: route table, parsing, envelope, codes to statuses, OpenAPI."""
