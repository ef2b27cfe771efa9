"""The only room that speaks to PIX4Dengine Cloud and to its S3.

Entry points: `rest.Rest` for the API, `credentials.Credentials` and `bucket.Bucket` for the objects. Importing this
package or any module of it imports neither boto3 nor botocore: they come with the first S3 credentials.
"""
