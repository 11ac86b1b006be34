"""What a deployment is told by whoever builds it."""

from pathlib import Path

import pytest

from s3edge.config import OwnParts, build, parse_settings
from s3edge.config.build import wiring_of


def test_the_address_of_a_mount_is_read_as_the_setting_is(tmp_path: Path) -> None:
    """Addresses of images begin with it, so a slash at its end is taken off."""
    settings = parse_settings({"S3EDGE_DATA_DIR": str(tmp_path)})
    wiring = wiring_of(settings, "https://app.example/segmentation/", OwnParts())
    assert wiring.public_url == "https://app.example/segmentation"


@pytest.mark.parametrize("address", ["127.0.0.1:8000/segmentation", "/segmentation", "ftp://x"])
def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    """It would be in the address of every image."""
    settings = parse_settings({"S3EDGE_DATA_DIR": str(tmp_path)})
    with pytest.raises(ValueError, match=r"bound_url is .*write an address such as"):
        build(settings, bound_url=address)
    stated = parse_settings(
        {"S3EDGE_DATA_DIR": str(tmp_path), "S3EDGE_PUBLIC_URL": "https://app.example"}
    )
    assert build(stated, bound_url=address).web.paths
