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
the log says what to mend. What a put may have left when its store went silent is removed in the
background once the store is back. What may stay for good, after a crash or when the beginning of an
upload in parts got no answer, is an object whose key nobody knows, or an unfinished upload: R2 removes
those after 7 days, S3 by a lifecycle rule.
"""
