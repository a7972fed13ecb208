#pragma once
// TLS for servers and clients (OpenSSL inside). TlsServer: one certificate, by directory, by files, or self-signed in memory as
// llm-d's picker makes it; replaced without a restart when its files change. TlsClient: what a client trusts and shows.
// Guarantees: a bad new certificate is logged and the old one stays. Any thread. Source: facts sheet "epp" 1.7, 2.1.
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace baton::net {

// {}: so that designated initializers may leave fields out without a warning.
struct TlsServerOptions {
  std::string cert_dir{};              // holds tls.crt and tls.key; "" = cert_file and key_file
  std::string cert_file{}, key_file{};   // both "" too: self-signed, RSA, ten years, organization "Inference Ext", no names
  std::string client_ca_file{};        // "" = clients show no certificate
  bool reload = false;               // looks at the files' content every few seconds
  std::string min_version{};           // "", "VersionTLS12", "VersionTLS13" (Go's names), "1.2", "1.3"
  std::string cipher_suites{};         // comma list of Go's names; "" = OpenSSL's
  std::vector<std::string> alpn = {"h2", "http/1.1"};  // in order of preference
};

class TlsServer {
 public:
  static Result<std::shared_ptr<TlsServer>> make(TlsServerOptions options);
  virtual ~TlsServer() = default;
};

struct TlsClientOptions {
  bool verify = true;
  std::string ca_file{}, ca_pem{};        // both "" = the system's
  std::string cert_file{}, key_file{};    // client certificate
  std::string cert_pem{}, key_pem{};
  std::vector<std::string> alpn{};
};

class TlsClient {
 public:
  static Result<std::shared_ptr<TlsClient>> make(TlsClientOptions options);
  virtual ~TlsClient() = default;
};

}  // namespace baton::net
