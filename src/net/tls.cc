#include "net/tls_context.h"

namespace baton::net {

Result<std::shared_ptr<TlsServer>> TlsServer::make(TlsServerOptions) { return fail(Code::kUnimplemented, "no TLS yet"); }
Result<std::shared_ptr<TlsClient>> TlsClient::make(TlsClientOptions) { return fail(Code::kUnimplemented, "no TLS yet"); }
std::unique_ptr<TlsStream> make_stream(TlsServer&) { return nullptr; }
std::unique_ptr<TlsStream> make_stream(TlsClient&, const std::string&) { return nullptr; }

}  // namespace baton::net
