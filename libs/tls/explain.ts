/**
 * Why did no connection come about, where TLS had a part in it? OpenSSL's and Node's words for the
 * failures that operators make, as one sentence that says what to do.
 */
const WITH_TLS: readonly (readonly [RegExp, string])[] = [
  [/wrong version number|packet length too long|unsupported protocol|WRONG_VERSION/i, 'it does not speak TLS'],
  [
    /self[- ]signed certificate|unable to (?:get|verify)|UNABLE_TO|SELF_SIGNED|invalid signature|certificate signature failure/i,
    'its certificate is not of the CA that is trusted here (DMESH_TLS_CA)',
  ],
  [/certificate has expired|CERT_HAS_EXPIRED/i, 'its certificate has expired'],
  [/not yet valid|CERT_NOT_YET_VALID/i, 'its certificate is not valid yet; compare the clocks'],
  [/certificate required|CERTIFICATE_REQUIRED/i, 'it asks for a certificate and none was shown (DMESH_TLS_CERT, DMESH_TLS_KEY)'],
  [
    /unknown ca|bad certificate|certificate unknown|certificate expired|UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_UNKNOWN|CERTIFICATE_EXPIRED|decrypt error/i,
    'it does not accept the certificate shown (DMESH_TLS_CERT): another CA, or expired',
  ],
];
const NAME_MISMATCH = /does not match certificate's altnames: (.*?)(?:\. Resolution note|$)/;
/** A connection that ended without a word; grpc-js has words for that, and HTTP/2 takes a TLS alert for garbage. */
const BROKEN_OFF = /^$|Failed to connect|Protocol error|ECONNRESET|EPIPE|closed during the TLS handshake/;

/** `text`: what the connection broke with, empty for nothing. `tls`: whether TLS was spoken. Undefined: not a matter of TLS. */
export function explainTlsFailure(text: string, tls: boolean): string | undefined {
  if (tls) {
    const mismatch = NAME_MISMATCH.exec(text)?.[1];
    if (mismatch !== undefined) return `its certificate is for another name: ${mismatch}`;
    const known = WITH_TLS.find(([pattern]) => pattern.test(text))?.[1];
    if (known !== undefined) return known;
  }
  if (!BROKEN_OFF.test(text)) return undefined;
  // Servers of Node refuse a certificate by hanging up.
  return tls
    ? 'it hung up; perhaps it does not accept the certificate shown (DMESH_TLS_CERT)'
    : 'it hung up; perhaps it speaks TLS (DMESH_TLS_CA)';
}
