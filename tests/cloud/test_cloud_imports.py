"""What an idle service carries."""

import subprocess
import sys

IDLE = """
import sys
import pix4d_watcher.cloud
from pix4d_watcher.cloud import bucket, credentials, rest, wire
api = rest.Rest(url="http://127.0.0.1:1", client_id="a", client_secret="b", timeout=1.0)
bucket.Bucket(credentials.Credentials(lambda: api.s3_grant(1)), s3_endpoint=None, ca_file=None, timeout=1.0)
print([name for name in sys.modules if name.split(".")[0] in {"boto3", "botocore", "s3transfer"}])
"""


def test_boto_comes_with_the_first_credentials():
    """Importing and making everything of the cloud room imports neither boto3 nor botocore."""
    done = subprocess.run([sys.executable, "-c", IDLE], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
