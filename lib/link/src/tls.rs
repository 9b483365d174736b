//! TLS 1.3 with certificates that nobody signed: it gives secrecy and a channel to bind to; trust comes from the proofs.

use crate::endpoint::EndpointError;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
    version::TLS13,
};
use std::sync::Arc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The name that every dialler asks for: real names are nobody's business on the way.
pub(crate) const SERVER_NAME: &str = "lastword.invalid";

/// Both halves of TLS for one endpoint, with a new certificate.
pub(crate) fn configure() -> Result<(TlsConnector, TlsAcceptor), EndpointError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = client_config(&provider).map_err(failed)?;
    let server = server_config(&provider)?;
    Ok((TlsConnector::from(Arc::new(client)), TlsAcceptor::from(Arc::new(server))))
}

fn client_config(provider: &Arc<CryptoProvider>) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(AnyCertificate { algorithms: provider.signature_verification_algorithms });
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server_config(provider: &Arc<CryptoProvider>) -> Result<ServerConfig, EndpointError> {
    let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()]).map_err(failed)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(failed)?;
    config.send_tls13_tickets = 0; // no resumption: every connection is proved anew
    Ok(config)
}

fn failed(error: impl std::fmt::Display) -> EndpointError {
    EndpointError::Tls { what: error.to_string() }
}

/// Takes any certificate, but only from whoever has its key.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::InvalidCertificate(CertificateError::BadSignature)) // TLS 1.2 is never offered
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
