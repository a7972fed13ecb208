#pragma once
// AccessReview: may whoever shows this bearer token read one of our pages? The cluster decides, as for llm-d's endpoint picker: a
// TokenReview says whose token it is, a SubjectAccessReview whether that user may "get" the path (nonResourceURLs in a ClusterRole).
// Answers are kept for a while, by a digest of the token: allowed kAccessAllowedMs, anything else kAccessDeniedMs.
// Requires: our own account may create both reviews. Thread: one I/O thread (its KubeClient's). Source: facts sheet "epp" 2.1, 6.
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/json.h"
#include "discovery/kube_client.h"
#include "net/http.h"

namespace baton::discovery {

inline constexpr int64_t kAccessAllowedMs = 60'000, kAccessDeniedMs = 10'000;
inline constexpr size_t kAccessKeptMax = 1'024;      // answers; over it the expired, then all are forgotten
inline constexpr size_t kReviewBytesMax = 256 << 10;  // of the API server's answer: the question counts as not answered

class AccessReview {
 public:
  enum class Verdict : uint8_t { kAllowed, kUnauthenticated, kForbidden, kFailed };
  struct Answer {
    Verdict verdict = Verdict::kFailed;
    std::string user;  // "" = not known
  };
  AccessReview(KubeAccess access, KubeTiming timing, const Clock& clock);
  Result<> check() { return client_.check(); }  // there are credentials
  net::Task<Answer> may_get(std::string_view token, std::string_view path);

 private:
  struct Kept {
    Answer answer;
    int64_t until_ms = 0;
  };
  net::Task<Result<Answer>> ask(std::string_view token, std::string_view path);
  net::Task<Result<Json>> create(std::string_view group, std::string_view kind, std::string body);
  void keep(std::string key, const Answer& answer);

  const Clock& clock_;
  KubeClient client_;
  std::map<std::string, Kept> kept_;  // by digest of token and path; at most kAccessKeptMax
  bool complained_ = false;
};

// nullopt: let it pass. 401, 403 or 500 else. Belongs to the I/O thread that made it.
using AccessGuard = std::function<net::Task<std::optional<net::Response>>(const net::Request&)>;
using AccessGuardFactory = std::function<AccessGuard()>;  // called once on each I/O thread; empty: no guard
// Errors: no credentials. clock outlives the guards.
Result<AccessGuardFactory> access_guards(KubeAccess access, const Clock& clock, KubeTiming timing = {});

}  // namespace baton::discovery
