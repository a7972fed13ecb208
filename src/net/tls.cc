#include "net/tls.h"

#include <openssl/err.h>

#include <chrono>
#include <mutex>

#include "base/log.h"
#include "net/limits.h"
#include "net/tls_context.h"

namespace baton::net {
namespace {

Result<SslContext> new_context(const SSL_METHOD* method) {
  SslContext context(SSL_CTX_new(method), SSL_CTX_free);
  if (!context) return std::unexpected(tls_error("TLS"));
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  // An idle connection keeps no record buffers.
  SSL_CTX_set_mode(context.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  return context;
}

class Server final : public TlsServer {
 public:
  explicit Server(TlsServerOptions options) : options_(std::move(options)), alpn_(alpn_wire(options_.alpn)) {
    if (!options_.cert_dir.empty()) {
      options_.cert_file = options_.cert_dir + "/tls.crt";
      options_.key_file = options_.cert_dir + "/tls.key";
    }
  }

  Result<> load() {
    BATON_TRY(Pem pem, read());
    BATON_TRY(context_, build(pem));
    pem_ = std::move(pem);
    return {};
  }

  std::unique_ptr<TlsStream> stream() {
    std::lock_guard lock(mutex_);
    look_again();
    return std::make_unique<TlsStream>(context_.get(), true, "", false);
  }

  void look_soon() {
    std::lock_guard lock(mutex_);
    looked_ = {};
  }

 private:
  bool from_files() const { return !options_.cert_file.empty() || !options_.key_file.empty(); }

  Result<Pem> read() const {
    if (!from_files()) return self_signed();
    BATON_TRY(std::string cert, read_pem_file(options_.cert_file));
    BATON_TRY(std::string key, read_pem_file(options_.key_file));
    return Pem{std::move(cert), std::move(key)};
  }

  Result<SslContext> build(const Pem& pem) {
    BATON_TRY(SslContext context, new_context(TLS_server_method()));
    BATON_OK(use_certificate(context.get(), pem));
    BATON_OK(set_min_version(context.get(), options_.min_version));
    BATON_OK(set_ciphers(context.get(), options_.cipher_suites));
    if (!options_.client_ca_file.empty()) {
      BATON_TRY(std::string ca, read_pem_file(options_.client_ca_file));
      BATON_OK(trust(context.get(), ca));
      SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
      static constexpr unsigned char kSessions[] = "baton";  // OpenSSL wants a name before it resumes verified sessions
      SSL_CTX_set_session_id_context(context.get(), kSessions, sizeof kSessions - 1);
    }
    if (!alpn_.empty()) SSL_CTX_set_alpn_select_cb(context.get(), choose, &alpn_);
    return context;
  }

  // Ours first that the client also speaks; none in common: go on without, the preface decides.
  static int choose(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* theirs, unsigned size,
                    void* ours) {
    const auto& wire = *static_cast<std::string*>(ours);
    unsigned char* chosen = nullptr;
    int rc = SSL_select_next_proto(&chosen, out_size, reinterpret_cast<const unsigned char*>(wire.data()),
                                   static_cast<unsigned>(wire.size()), theirs, size);
    if (rc != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
  }

  // No thread watches: a certificate matters to the next connection, which asks here.
  void look_again() {
    auto now = std::chrono::steady_clock::now();
    if (!options_.reload || !from_files() || now - looked_ < kCertificateLookEvery) return;
    looked_ = now;
    auto pem = read();
    if (pem && *pem == pem_) return;
    auto context = pem ? build(*pem) : std::unexpected(pem.error());
    if (!context) {
      const std::string& why = context.error().message;
      if (complaint_ != why) log_error("new TLS certificate refused, the old one stays", "error={}", why);
      complaint_ = why;
      return;
    }
    context_ = *context;
    pem_ = *std::move(pem);
    complaint_.clear();
    log_info("TLS certificate replaced", "file={}", options_.cert_file);
  }

  TlsServerOptions options_;
  std::string alpn_;
  std::mutex mutex_;
  SslContext context_;
  Pem pem_;
  std::chrono::steady_clock::time_point looked_;
  std::string complaint_;
};

class TrustingClient final : public TlsClient {
 public:
  explicit TrustingClient(TlsClientOptions options) : options_(std::move(options)) {}

  Result<> load() {
    BATON_TRY(context_, new_context(TLS_client_method()));
    BATON_OK(set_min_version(context_.get(), ""));
    std::string wire = alpn_wire(options_.alpn);
    if (!wire.empty()) {
      SSL_CTX_set_alpn_protos(context_.get(), reinterpret_cast<const unsigned char*>(wire.data()),
                              static_cast<unsigned>(wire.size()));
    }
    BATON_OK(load_certificate());
    SSL_CTX_set_verify(context_.get(), options_.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
    if (!options_.verify) return {};
    std::string ca = options_.ca_pem;
    if (!options_.ca_file.empty()) {
      BATON_TRY(ca, read_pem_file(options_.ca_file));
    }
    if (!ca.empty()) return trust(context_.get(), ca);
    if (SSL_CTX_set_default_verify_paths(context_.get()) != 1) return std::unexpected(tls_error("the system's CA certificates"));
    return {};
  }

  std::unique_ptr<TlsStream> stream(const std::string& server_name) {
    return std::make_unique<TlsStream>(context_.get(), false, server_name, options_.verify);
  }

 private:
  Result<> load_certificate() {
    Pem pem{options_.cert_pem, options_.key_pem};
    if (!options_.cert_file.empty()) {
      BATON_TRY(pem.cert, read_pem_file(options_.cert_file));
    }
    if (!options_.key_file.empty()) {
      BATON_TRY(pem.key, read_pem_file(options_.key_file));
    }
    if (pem.cert.empty() && pem.key.empty()) return {};
    return use_certificate(context_.get(), pem);
  }

  TlsClientOptions options_;
  SslContext context_;
};

}  // namespace

Result<std::shared_ptr<TlsServer>> TlsServer::make(TlsServerOptions options) {
  auto server = std::make_shared<Server>(std::move(options));
  if (auto loaded = server->load(); !loaded) return std::unexpected(within("TLS", loaded.error()));
  return server;
}

Result<std::shared_ptr<TlsClient>> TlsClient::make(TlsClientOptions options) {
  auto client = std::make_shared<TrustingClient>(std::move(options));
  if (auto loaded = client->load(); !loaded) return std::unexpected(within("TLS", loaded.error()));
  return client;
}

// Each has one implementation, made above.
std::unique_ptr<TlsStream> make_stream(TlsServer& server) { return static_cast<Server&>(server).stream(); }
void reload_now(TlsServer& server) { static_cast<Server&>(server).look_soon(); }
std::unique_ptr<TlsStream> make_stream(TlsClient& client, const std::string& server_name) {
  return static_cast<TrustingClient&>(client).stream(server_name);
}

}  // namespace baton::net
