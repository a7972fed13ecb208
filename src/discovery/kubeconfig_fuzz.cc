// Any bytes as a kubeconfig or as a credential plugin's answer: an error with a message, or something that can be used.
#include <cstdint>
#include <cstdlib>

#include "discovery/kube_access.h"
#include "discovery/kube_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::discovery;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto access = parse_kubeconfig({{"/a/config", text}, {"/b/config", text}});
  if (!access && access.error().message.empty()) std::abort();
  if (access && (access->host.empty() || access->port < 1 || access->port > 65535)) std::abort();
  if (access && access->exec && access->exec->command.empty()) std::abort();
  const auto credential = parse_exec_credential(text);
  if (credential && credential->token.empty() && credential->cert_pem.empty()) std::abort();
  (void)decode_base64(text);
  (void)subject_of_token(text);
  if (const auto at = unix_from_rfc3339(text); at && text.size() < 20) std::abort();
  return 0;
}
