#include "discovery/access_review.h"

#include "base/json.h"
#include "base/log.h"
#include "base/sha256.h"
#include "discovery/limits.h"

namespace baton::discovery {
namespace {

std::string_view bearer(const net::Request& request) {
  constexpr std::string_view kScheme = "bearer ";
  std::string_view value = request.headers.get("authorization").value_or("");
  if (value.size() <= kScheme.size() || !net::same_header_name(value.substr(0, kScheme.size()), kScheme)) return {};
  value.remove_prefix(kScheme.size());
  while (value.starts_with(' ')) value.remove_prefix(1);
  return value;
}

void write_texts(JsonWriter& w, const Json& list) {
  w.array();
  for (const Json& item : list.items) {
    if (item.is_string()) w.value(item.text);
  }
  w.end();
}

// The SubjectAccessReview of the user that a TokenReview found.
std::string subject_review(const Json& user, std::string_view path) {
  JsonWriter w;
  w.object().field("apiVersion", "authorization.k8s.io/v1").field("kind", "SubjectAccessReview").key("spec").object();
  w.key("nonResourceAttributes").object().field("path", path).field("verb", "get").end();
  for (const char* key : {"username", "uid"}) {
    if (const Json* value = user.find(key); value != nullptr && value->is_string())
      w.field(std::string_view(key) == "username" ? "user" : key, value->text);
  }
  if (const Json* groups = user.find("groups"); groups != nullptr && groups->is_array()) {
    w.key("groups");
    write_texts(w, *groups);
  }
  if (const Json* extra = user.find("extra"); extra != nullptr && extra->is_object()) {
    w.key("extra").object();
    for (size_t i = 0; i < extra->items.size(); ++i) {
      if (!extra->items[i].is_array()) continue;
      w.key(extra->keys[i]);
      write_texts(w, extra->items[i]);
    }
    w.end();
  }
  w.end().end();
  return w.take();
}

bool says(const Json& review, std::string_view field) {
  const Json* value = review.find_path({"status", field});
  return value != nullptr && value->as_bool().value_or(false);
}

}  // namespace

AccessReview::AccessReview(KubeAccess access, KubeTiming timing, const Clock& clock)
    : clock_(clock), client_(std::move(access), timing, clock) {}

net::Task<Result<Json>> AccessReview::create(std::string_view group, std::string_view kind, std::string body) {
  KubeClient::Ask ask;
  ask.method = "POST";
  ask.target = cat("/apis/", group, "/v1/", kind);
  ask.body = std::move(body);
  ask.bytes_max = kReviewBytesMax;
  BATON_CO_TRY(const net::Response response, co_await client_.fetch(ask));
  if (response.status < 200 || response.status > 299) co_return std::unexpected(status_error(response.status, response.body));
  co_return parse_json(response.body, {.bytes_max = kReviewBytesMax, .nodes_max = 10'000});
}

net::Task<Result<AccessReview::Answer>> AccessReview::ask(std::string_view token, std::string_view path) {
  std::string body = cat(R"({"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":)", json_string(token), "}}");
  BATON_CO_TRY(const Json whose, co_await create("authentication.k8s.io", "tokenreviews", std::move(body)));
  if (!says(whose, "authenticated")) co_return Answer{.verdict = Verdict::kUnauthenticated, .user = {}};
  const Json* user = whose.find_path({"status", "user"});
  if (user == nullptr) co_return fail(Code::kInternal, "the API server says who it is not");
  Answer out{.verdict = Verdict::kForbidden, .user = {}};
  if (const Json* name = user->find("username"); name != nullptr) out.user = name->text;
  BATON_CO_TRY(const Json may, co_await create("authorization.k8s.io", "subjectaccessreviews", subject_review(*user, path)));
  if (says(may, "allowed")) out.verdict = Verdict::kAllowed;
  co_return out;
}

void AccessReview::keep(std::string key, const Answer& answer) {
  const int64_t now = clock_.now_ms();
  if (kept_.size() >= kAccessKeptMax) std::erase_if(kept_, [now](const auto& entry) { return entry.second.until_ms <= now; });
  if (kept_.size() >= kAccessKeptMax) kept_.clear();
  kept_[std::move(key)] = {answer, now + (answer.verdict == Verdict::kAllowed ? kAccessAllowedMs : kAccessDeniedMs)};
}

net::Task<AccessReview::Answer> AccessReview::may_get(std::string_view token, std::string_view path) {
  if (token.empty() || token.size() > kTokenBytesMax || !valid_utf8(token))
    co_return Answer{.verdict = Verdict::kUnauthenticated, .user = {}};
  std::string key = cat(hex(Sha256().update(token).finish()), " ", path);
  if (const auto at = kept_.find(key); at != kept_.end() && clock_.now_ms() < at->second.until_ms) co_return at->second.answer;
  const auto answer = co_await ask(token, path);
  if (!answer) {
    if (!std::exchange(complained_, true))
      log_error("who may read metrics cannot be asked: may this account create tokenreviews and subjectaccessreviews?",
                "account={} error=\"{}\"", client_.account(), answer.error().message);
    co_return Answer{};
  }
  complained_ = false;
  keep(std::move(key), *answer);
  co_return *answer;
}

Result<AccessGuardFactory> access_guards(KubeAccess access, const Clock& clock, KubeTiming timing) {
  BATON_OK(AccessReview(access, timing, clock).check());
  return [access = std::move(access), timing, &clock]() -> AccessGuard {
    auto review = std::make_shared<AccessReview>(access, timing, clock);
    const auto ready = review->check();
    if (!ready) log_error("no credentials to ask who may read metrics", "error=\"{}\"", ready.error().message);
    return [review](const net::Request& request) -> net::Task<std::optional<net::Response>> {
      using Verdict = AccessReview::Verdict;
      const auto answer = co_await review->may_get(bearer(request), request.path);
      switch (answer.verdict) {
        case Verdict::kAllowed:
          co_return std::nullopt;
        case Verdict::kForbidden:
          co_return net::Response::text(403, cat("Authorization denied for user ", answer.user, "\n"));
        case Verdict::kFailed:
          co_return net::Response::text(500, "Authentication failed\n");
        case Verdict::kUnauthenticated:
          break;
      }
      net::Response response = net::Response::text(401, "Unauthorized\n");
      response.headers.set("WWW-Authenticate", "Bearer");
      co_return response;
    };
  };
}

}  // namespace baton::discovery
