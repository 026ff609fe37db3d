from __future__ import annotations

import hashlib

import pytest
from cryptography import x509
from tests.attest.samples import ABSENT, REASON, certificates, load, read

from matl.attest import _roots
from matl.attest._x509 import Certificate, load_key

# SHA-256 of what is pinned: SubjectPublicKeyInfo, and Intel's whole certificate.
DIGESTS = {
    "Milan": "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
    "Genoa": "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
    "Turin": "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
}
GOOGLE = {
    "feb2ea7551ee316ed4bb443c8293b884dbfdea40b603ee3e4f4a897e4580fbae",
    "3ee44512a1af2beb39c889490c60ea3f82e43f5d5a5532f5ab9419f676cd07ec",
}
APPLE = {"1ae751fd29896d0f1f13fe226c063f445d40d8938acc6245c251ecc0679330bd"}
INTEL = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_the_pinned_roots_are_the_vendors() -> None:
    assert {product: sha256(key) for product, key in _roots.AMD.items()} == DIGESTS
    assert {sha256(key) for key in _roots.GOOGLE} == GOOGLE
    assert {sha256(key) for key in _roots.APPLE} == APPLE
    assert sha256(_roots.INTEL_CERTIFICATE) == INTEL


def test_the_pinned_roots_can_be_used() -> None:
    for key in (*_roots.AMD.values(), *_roots.GOOGLE, *_roots.APPLE):
        load_key(key)
    intel = Certificate.parse(_roots.INTEL_CERTIFICATE)
    intel.check_signed_by(intel.key())
    assert "Intel SGX Root CA" in x509.load_der_x509_certificate(_roots.INTEL_CERTIFICATE).subject.rfc4514_string()


@pytest.mark.skipif(ABSENT, reason=REASON)
def test_the_pinned_roots_are_those_of_the_published_certificates() -> None:
    def key(der: bytes) -> bytes:
        certificate = Certificate.parse(der)
        certificate.check_signed_by(certificate.key())
        return certificate.spki

    for product, pinned in _roots.AMD.items():
        assert key(certificates(read(f"amd_sev_snp/ark_{product.lower()}.pem"))[0]) == pinned
    google = load("android_key_attestation/google_roots.json")
    assert {key(certificates(pem.encode())[0]) for pem in google} == _roots.GOOGLE
    assert {key(certificates(read("apple_app_attest/apple_app_attestation_root_ca.pem"))[0])} == _roots.APPLE
    assert read("intel_dcap/intel_sgx_root_ca.der") == _roots.INTEL_CERTIFICATE
