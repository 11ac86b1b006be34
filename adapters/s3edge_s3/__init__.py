"""
Objects in a bucket: Cloudflare R2, Amazon S3, MinIO and what else speaks their protocol.

botocore signs, the shared HTTP client moves the bytes. An object of up to 5 MiB is one PUT, a longer one
a multipart upload in parts of 5 MiB; both are conditional (``If-None-Match: *``), so the first put of
a key wins. Nothing is sent that R2 does not implement: no checksum trailer, no ACL, no tag.

Needs, on R2: an API token with "Object Read & Write" on the one bucket. On S3: ``s3:GetObject``,
``s3:PutObject``, ``s3:DeleteObject`` and ``s3:AbortMultipartUpload`` on the bucket's objects, and
``s3:ListBucket`` on the bucket, without which S3 answers 403 for an object that is not there.
Elsewhere: a server that honours ``If-None-Match: *``; ``s3edge doctor`` tells whether it does.

Fails: a store that is down, slow or busy is ``SERVICE_UNAVAILABLE`` after a few tries, within about four
seconds of the last progress. A refusal (wrong key, bucket, permission) is too, and one error line in
the log says what to mend. After a crash, or when a store goes silent in the middle of a put, what it
has of it may stay: nobody knows its key, or it is an unfinished upload, which R2 removes after 7 days
and S3 by a lifecycle rule.
"""
