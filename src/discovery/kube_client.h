#pragma once
// KubeClient: requests to one API server with the credentials of a KubeAccess, renewed as they age or are refused once (401):
// token, certificate and CA files are read again, a credential plugin is run again. What cannot be renewed leaves the old one in
// force, with a log line.
// Thread: check() first, anywhere; then everything on one I/O thread, and a credential plugin blocks that thread while it runs.
// Errors: no answer is an Error; an HTTP status other than 2xx becomes one through status_error(), kept apart where the status
// decides what to do next.
#include <memory>
#include <string>

#include "base/clock.h"
#include "discovery/kube_access.h"
#include "discovery/kube_timing.h"
#include "net/http.h"
#include "net/tls.h"

namespace baton::discovery {

class KubeClient {
 public:
  KubeClient(KubeAccess access, KubeTiming timing, const Clock& clock);
  Result<> check();  // credentials can be had and TLS can be set up

  struct Ask {
    std::string method = "GET", target;  // target without the access' base path
    std::string body, content_type = "application/json";
    size_t bytes_max = 0;                            // of the answer
    net::Millis answer_timeout{0}, body_timeout{0};  // 0 = the timing's
    net::Cancel* cancel = nullptr;
  };
  net::Task<Result<net::Response>> fetch(const Ask& ask);
  net::Task<Result<std::unique_ptr<net::ResponseStream>>> open(const Ask& ask);

  std::string account() const;  // "system:serviceaccount:ns:name" if the token says so, else where the credentials come from
  const KubeAccess& access() const { return access_; }
  const KubeTiming& timing() const { return timing_; }
  const Clock& clock() const { return clock_; }

 private:
  Result<> renew(bool refused);
  Result<> run_plugin(bool refused);
  Result<> read_token();
  Result<> make_tls();
  Result<net::Call> call_for(const Ask& ask);

  KubeAccess access_;
  KubeTiming timing_;
  const Clock& clock_;
  std::shared_ptr<net::TlsClient> tls_;
  std::string tls_files_;  // content of the files that tls_ was made of
  std::string token_;
  int64_t files_read_ms_ = -1;
  std::optional<ExecCredential> exec_;
  net::Client client_;
};

// The API server's own words for a failed request: "pods is forbidden: User ... cannot list resource ...".
Error status_error(int status, std::string_view body);
net::Millis retry_after(const net::Response& response);  // 0 = it does not say; at most a minute

std::string query_escaped(std::string_view text);

}  // namespace baton::discovery
