//! What stands in the certificates of a mesh (SPIFFE X.509-SVID; RFC 5280).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use starling_gossip::NodeName;
use starling_transport::{Line, SpiffeId, TrustDomain};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

use super::CaError;
use crate::random;

/// A root: signs intermediates only.
pub(super) fn root(
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<CertificateParams, CaError> {
    authority(trust_domain, now, "starling root", ROOT_LIFETIME, 1)
}

/// The issuer `node`: signs leaves only.
pub(super) fn intermediate(
    trust_domain: &TrustDomain,
    node: &NodeName,
    now: SystemTime,
) -> Result<CertificateParams, CaError> {
    authority(
        trust_domain,
        now,
        &format!("starling issuer {node}"),
        INTERMEDIATE_LIFETIME,
        0,
    )
}

/// An SVID. The name that counts stands in the SANs. The subject of a service's says for which host it was made.
pub(super) fn leaf(
    id: &SpiffeId,
    host: Option<&str>,
    line: &Line,
    now: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, CaError> {
    // A line that begins ahead of this clock, by the clock of an operator, takes the leaf with it.
    let mut params = common(now.max(line.begins), not_after)?;
    let mut extension = CustomExtension::from_oid_content(Line::OID, line.to_extension()?);
    extension.set_criticality(false);
    params.custom_extensions = vec![extension];
    if let (Some(_), Some(host)) = (id.service_name(), host) {
        params.distinguished_name.push(DnType::CommonName, host);
    }
    params.subject_alt_names = vec![
        SanType::URI(id.as_str().try_into()?),
        SanType::DnsName(id.dns_name().as_str().try_into()?),
    ];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

/// For whom an intermediate issues, and until when. `None` if this is not one of ours.
pub(super) fn read(intermediate_pem: &str) -> Option<(TrustDomain, SystemTime)> {
    let (_, pem) = parse_x509_pem(intermediate_pem.as_bytes()).ok()?;
    let cert = pem.parse_x509().ok()?;
    if !cert.is_ca() {
        return None;
    }
    let names = &cert.subject_alternative_name().ok()??.value.general_names;
    let trust_domain = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => TrustDomain::parse(uri.strip_prefix("spiffe://")?).ok(),
        _ => None,
    })?;
    let not_after_s = u64::try_from(cert.validity().not_after.timestamp()).ok()?;
    Some((trust_domain, UNIX_EPOCH + Duration::from_secs(not_after_s)))
}

/// A CA certificate is an SVID of the trust domain itself (X.509-SVID §3.2): its URI has no path.
fn authority(
    trust_domain: &TrustDomain,
    now: SystemTime,
    role: &str,
    lifetime: Duration,
    cas_below: u8,
) -> Result<CertificateParams, CaError> {
    let mut params = common(now, now + lifetime)?;
    let uri = format!("spiffe://{trust_domain}");
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
    // Two CAs of one name would be taken for each other where only names are compared.
    let mark = u32::from_be_bytes(random::bytes().map_err(CaError::Random)?);
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{role} {mark:08x}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(cas_below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn common(now: SystemTime, not_after: SystemTime) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(serial()?);
    params.not_before = OffsetDateTime::from(now - BACKDATED);
    params.not_after = OffsetDateTime::from(not_after);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 126 random bits in 16 bytes: the top bits are fixed so that it is positive and never shorter.
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes: [u8; 16] = random::bytes().map_err(CaError::Random)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ROOT_LIFETIME: Duration = Duration::from_secs(3652 * DAY.as_secs());
const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(365 * DAY.as_secs());

/// Hosts whose clocks are behind by less than this accept a new certificate at once.
pub(crate) const BACKDATED: Duration = starling_transport::DATED_BACK;
