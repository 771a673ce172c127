"""Tokens for Amazon MSK with IAM, from the credentials that the AWS SDK finds (extra `msk`)."""

import os

from eddy.models.errors import EddyError


def token() -> str:
    """A token for the cluster's region, signed with the present credentials; it is valid for 15 minutes.

    Errors: EddyError when the extra is not installed, and when no region is set; those of the SDK when it
    finds no credentials.
    """
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
    except ModuleNotFoundError:
        raise EddyError("it needs a package: pip install 'eddy-streams[msk]'") from None
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise EddyError("set AWS_REGION to the cluster's region")
    signed, _ = MSKAuthTokenProvider.generate_auth_token(region)
    return str(signed)
