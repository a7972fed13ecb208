#pragma once
// The inside of TlsServer and TlsClient, for the connections of this folder; PEM text into an SSL_CTX. Errors name what was wrong
// in OpenSSL's words. Any thread.
#include "net/tls.h"
#include "net/tls_stream.h"

namespace baton::net {

std::unique_ptr<TlsStream> make_stream(TlsServer& server);  // with the certificate of this moment
// server_name: for SNI, and verified if the client verifies; a name or an address.
std::unique_ptr<TlsStream> make_stream(TlsClient& client, const std::string& server_name);

void reload_now(TlsServer& server);  // the next connection looks at the files, whenever it did last

using SslContext = std::shared_ptr<SSL_CTX>;

struct Pem {
  std::string cert, key;  // text
  bool operator==(const Pem&) const = default;
};

Error tls_error(std::string_view what);  // with the first of OpenSSL's queued reasons
Result<std::string> read_pem_file(const std::string& path);
Result<> use_certificate(SSL_CTX* context, const Pem& pem);  // chain and key, which must fit
Result<> trust(SSL_CTX* context, std::string_view ca_pem);   // adds every certificate in it
Result<Pem> self_signed(const char* alternative_names = nullptr);  // "DNS:localhost,IP:127.0.0.1"
Result<> set_min_version(SSL_CTX* context, std::string_view go_name);
Result<> set_ciphers(SSL_CTX* context, std::string_view go_names);
std::string alpn_wire(const std::vector<std::string>& protocols);

}  // namespace baton::net
