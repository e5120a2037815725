"""Holds SVIDs against Python's `cryptography`, which shares no code with the mesh.

    verify.py TRUST CHAIN IDENTITY DNS_NAME

CHAIN is PEM, leaf first. Fails unless the leaf is an X.509-SVID of IDENTITY that both a client's and a server's verifier accept.
"""
import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID


def main():
    trust, chain, identity, dns_name = sys.argv[1:]
    roots = x509.load_pem_x509_certificates(pathlib.Path(trust).read_bytes())
    leaf, *intermediates = x509.load_pem_x509_certificates(pathlib.Path(chain).read_bytes())
    builder = verification.PolicyBuilder().store(verification.Store(roots))
    client = builder.build_client_verifier().verify(leaf, intermediates)
    assert [name.value for name in client.subjects] == [identity, dns_name] or \
        {name.value for name in client.subjects} == {identity, dns_name}, client.subjects
    builder.build_server_verifier(x509.DNSName(dns_name)).verify(leaf, intermediates)

    # X.509-SVID, sections 2 to 4.
    extension = lambda kind: leaf.extensions.get_extension_for_class(kind)
    names = extension(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [identity]
    assert names.critical or leaf.subject.rdns
    assert extension(x509.BasicConstraints).value.ca is False
    usage = extension(x509.KeyUsage)
    assert usage.critical and usage.value.digital_signature
    assert not usage.value.key_cert_sign and not usage.value.crl_sign
    extended = set(extension(x509.ExtendedKeyUsage).value)
    assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= extended
    assert isinstance(leaf.public_key().curve, ec.SECP256R1)
    for ca, below in ((intermediates[0], 0), (roots[0], 1)):
        limits = ca.extensions.get_extension_for_class(x509.BasicConstraints)
        assert limits.critical and limits.value.ca and limits.value.path_length == below
        uris = ca.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        domain = identity.split("/")[2]
        assert uris.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://{domain}"]
    print("accepted")


main()
