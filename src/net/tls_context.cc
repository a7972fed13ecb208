#include "net/tls_context.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>


#include "base/file.h"
#include "net/limits.h"

namespace baton::net {
namespace {

template <auto kFree>
struct Freed {
  template <class T>
  void operator()(T* p) const {
    kFree(p);
  }
};
using Bio = std::unique_ptr<BIO, Freed<BIO_free>>;
using Cert = std::unique_ptr<X509, Freed<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;

Bio memory(std::string_view text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

std::string text_of(const Bio& bio) {
  char* data = nullptr;
  long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(size)};
}

}  // namespace

Error tls_error(std::string_view what) {
  unsigned long code = ERR_peek_error();
  const char* reason = code ? ERR_reason_error_string(code) : nullptr;
  ERR_clear_error();
  return {Code::kInvalidArgument, reason ? cat(what, ": ", reason) : std::string(what)};
}

Result<std::string> read_pem_file(const std::string& path) { return read_file(path, kPemBytesMax); }

Result<> use_certificate(SSL_CTX* context, const Pem& pem) {
  Bio certs = memory(pem.cert), keys = memory(pem.key);
  Cert leaf(PEM_read_bio_X509_AUX(certs.get(), nullptr, nullptr, nullptr));
  if (!leaf || SSL_CTX_use_certificate(context, leaf.get()) != 1) return std::unexpected(tls_error("certificate"));
  SSL_CTX_clear_chain_certs(context);
  while (Cert next{PEM_read_bio_X509(certs.get(), nullptr, nullptr, nullptr)}) {
    if (SSL_CTX_add1_chain_cert(context, next.get()) != 1) return std::unexpected(tls_error("certificate chain"));
  }
  ERR_clear_error();  // "no start line": the end of the chain
  Key key(PEM_read_bio_PrivateKey(keys.get(), nullptr, nullptr, nullptr));
  if (!key || SSL_CTX_use_PrivateKey(context, key.get()) != 1) return std::unexpected(tls_error("private key"));
  if (SSL_CTX_check_private_key(context) != 1) return std::unexpected(tls_error("certificate and private key"));
  return {};
}

Result<> trust(SSL_CTX* context, std::string_view ca_pem) {
  Bio bio = memory(ca_pem);
  int added = 0;
  while (Cert ca{PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)}) {
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context), ca.get()) != 1) return std::unexpected(tls_error("CA certificate"));
    ++added;
  }
  ERR_clear_error();
  if (added == 0) return fail(Code::kInvalidArgument, "no CA certificate in the PEM text");
  return {};
}

// As upstream's picker makes one, but with 2048 bits: nobody checks it, and 4096 make each handshake six times as dear.
Result<Pem> self_signed(const char* alternative_names) {
  Key key(EVP_RSA_gen(2048));
  Cert cert(X509_new());
  if (!key || !cert) return std::unexpected(tls_error("self-signed certificate"));
  X509_set_version(cert.get(), X509_VERSION_3);
  ASN1_INTEGER_set_int64(X509_get_serialNumber(cert.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(cert.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(cert.get()), 10L * 365 * 24 * 3600);
  X509_set_pubkey(cert.get(), key.get());
  X509_NAME* name = X509_get_subject_name(cert.get());
  static constexpr unsigned char kOrganization[] = "Inference Ext";
  X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, kOrganization, -1, -1, 0);
  X509_set_issuer_name(cert.get(), name);
  using Extension = std::pair<int, const char*>;
  for (auto [id, value] : {Extension(NID_key_usage, "critical,digitalSignature,keyEncipherment"),
                           Extension(NID_ext_key_usage, "serverAuth,clientAuth"),
                           Extension(NID_basic_constraints, "critical,CA:FALSE"),
                           Extension(NID_subject_alt_name, alternative_names)}) {
    if (!value) continue;
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, id, value);
    if (extension) X509_add_ext(cert.get(), extension, -1);
    X509_EXTENSION_free(extension);
  }
  if (X509_sign(cert.get(), key.get(), EVP_sha256()) == 0) return std::unexpected(tls_error("self-signed certificate"));
  Bio cert_out(BIO_new(BIO_s_mem())), key_out(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(cert_out.get(), cert.get());
  PEM_write_bio_PrivateKey(key_out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  return Pem{text_of(cert_out), text_of(key_out)};
}

Result<> set_min_version(SSL_CTX* context, std::string_view go_name) {
  int version = TLS1_2_VERSION;
  if (go_name == "VersionTLS13" || go_name == "1.3") {
    version = TLS1_3_VERSION;
  } else if (go_name == "VersionTLS10" || go_name == "VersionTLS11" || go_name == "1.0" || go_name == "1.1") {
    return fail(Code::kInvalidArgument, "TLS version ", go_name, " is not safe; the least is VersionTLS12");
  } else if (!go_name.empty() && go_name != "VersionTLS12" && go_name != "1.2") {
    return fail(Code::kInvalidArgument, "unknown TLS version ", go_name, "; one of VersionTLS12, VersionTLS13");
  }
  SSL_CTX_set_min_proto_version(context, version);
  return {};
}

// Go and IANA name suites alike, but for two that Go also knows without their hash. TLS 1.3's own are always all on, as in Go.
Result<> set_ciphers(SSL_CTX* context, std::string_view go_names) {
  std::string list;
  while (!go_names.empty()) {
    size_t comma = std::min(go_names.find(','), go_names.size());
    std::string name(go_names.substr(0, comma));
    go_names.remove_prefix(std::min(comma + 1, go_names.size()));
    std::erase(name, ' ');
    if (name.empty()) continue;
    std::string known = name.ends_with("_POLY1305") ? name + "_SHA256" : name;
    std::string_view openssl = OPENSSL_cipher_name(known.c_str());
    if (openssl == "(NONE)") return fail(Code::kInvalidArgument, "unknown cipher suite ", name);
    if (!known.starts_with("TLS_AES_") && !known.starts_with("TLS_CHACHA20_")) list += cat(list.empty() ? "" : ":", openssl);
  }
  if (!list.empty() && SSL_CTX_set_cipher_list(context, list.c_str()) != 1) return std::unexpected(tls_error("cipher suites"));
  return {};
}

std::string alpn_wire(const std::vector<std::string>& protocols) {
  std::string wire;
  for (const std::string& p : protocols) {
    if (p.empty() || p.size() > 255) continue;
    wire += static_cast<char>(p.size());
    wire += p;
  }
  return wire;
}

}  // namespace baton::net
