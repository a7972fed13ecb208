#include "discovery/reflector.h"

#include <algorithm>

#include "base/log.h"
#include "discovery/limits.h"

namespace baton::discovery {
namespace {

// A watch that ended sooner and said nothing is a failed one: without this a broken proxy would make us ask in a circle.
constexpr int64_t kWatchLivesMs = 1'000;
constexpr int kWatchFailuresMax = 3;  // then the version itself may be what the server cannot serve
constexpr int64_t kGone = 410;

std::string full_name(const Resource& resource) { return resource.plural + (resource.group.empty() ? "" : "." + resource.group); }

// Whether an error says that our version is of no use, rather than that the server cannot be reached now.
bool needs_list(Code code) {
  return code == Code::kOutOfRange || code == Code::kDataLoss || code == Code::kInvalidArgument ||
         code == Code::kResourceExhausted;
}

}  // namespace

std::string Resource::path() const {
  return cat(group.empty() ? "/api/" : cat("/apis/", group, '/'), version, ns.empty() ? "" : "/namespaces/" + ns, '/', plural);
}

std::string rbac_command(const Resource& resource, std::string_view verbs, const std::string& account) {
  constexpr std::string_view kAccount = "system:serviceaccount:";
  const bool service = account.starts_with(kAccount);
  std::string role = "baton-router-" + resource.plural;
  std::ranges::replace(role, '/', '-');  // of a subresource: deployments.apps/scale
  // Another kind of user is not known by name here: the API server's own message has it.
  const std::string who = service ? " --serviceaccount=" + account.substr(kAccount.size()) : " --user=USER";
  if (resource.cluster) {
    return cat("kubectl create clusterrole ", role, " --verb=", verbs, " --resource=", full_name(resource),
               " && kubectl create clusterrolebinding ", role, " --clusterrole=", role, who);
  }
  return cat("kubectl -n ", resource.ns, " create role ", role, " --verb=", verbs, " --resource=", full_name(resource),
             " && kubectl -n ", resource.ns, " create rolebinding ", role, " --role=", role, who);
}

net::Millis Backoff::next() {
  const int64_t whole = std::min(max_.count(), min_.count() << std::min(failures_++, 20));
  const int64_t half = whole / 2;
  return net::Millis(whole - half + static_cast<int64_t>(prng_.below(static_cast<uint64_t>(half) + 1)));
}

Reflector::Reflector(KubeClient& client, Resource resource, Store& store, uint64_t seed, std::function<void()> changed)
    : client_(client),
      resource_(std::move(resource)),
      store_(store),
      changed_(std::move(changed)),
      backoff_(client.timing().backoff_min, client.timing().backoff_max, seed),
      prng_(mix64(seed)) {}

void Reflector::cancel() { cancel_.cancel(); }

net::Task<> Reflector::run() {
  while (!given_up()) {
    verb_ = relist_ ? "list" : "watch";
    Result<> done;
    if (relist_) {
      done = co_await list();
    } else {
      done = co_await watch();
      watches_failed_ = done ? 0 : watches_failed_ + 1;
      if (!done && (needs_list(done.error().code) || watches_failed_ >= kWatchFailuresMax)) relist_ = true;
      // 410 long after the list is the protocol's ordinary course: no error, no wait.
      const int64_t age_ms = client_.clock().now_ms() - listed_ms_;
      if (!done && done.error().code == Code::kOutOfRange && age_ms > client_.timing().backoff_max.count()) continue;
    }
    if (given_up()) break;
    if (!done) co_await pause(done.error());
  }
}

std::string Reflector::target(std::string_view query) const {
  std::string out = cat(resource_.path(), '?', query);
  if (!resource_.name.empty()) out += cat("&fieldSelector=", query_escaped("metadata.name=" + resource_.name));
  if (!resource_.label_selector.empty()) out += cat("&labelSelector=", query_escaped(resource_.label_selector));
  return out;
}

net::Task<Result<>> Reflector::list() {
  ++counts_.lists;
  int page_objects = kPageObjects, pages = 0, restarts = 0;
  std::string more;
  store_.list_began();
  do {
    KubeClient::Ask ask;
    ask.target = target(cat("limit=", page_objects, more.empty() ? "" : "&continue=" + query_escaped(more)));
    ask.bytes_max = kPageBytesMax;
    ask.cancel = &cancel_;
    auto response = co_await client_.fetch(ask);
    if (given_up()) co_return fail(Code::kCancelled, "stopping");
    if (!response && response.error().code == Code::kResourceExhausted && page_objects > 1) {
      page_objects /= 2;
      continue;
    }
    if (!response) co_return std::unexpected(std::move(response).error());
    heard_ms_ = client_.clock().now_ms();
    if (response->status == kGone && !more.empty() && restarts++ == 0) {  // the list took too long: its snapshot is gone
      more.clear();
      store_.list_began();
      pages = 0;
      page_objects = kPageObjects * 10;
      continue;
    }
    wait_at_least_ = retry_after(*response);
    if (response->status != 200) co_return std::unexpected(status_error(response->status, response->body));
    if (++pages > kPagesMax) co_return fail(Code::kDataLoss, "a list of more than ", kPagesMax, " pages");
    more.clear();
    BATON_CO_OK(take_page(response->body, more));
  } while (!more.empty() || pages == 0);
  store_.list_ended();
  relist_ = false;
  watches_failed_ = 0;
  listed_ms_ = heard_ms_;
  tried_ = true;
  state_ = State::kSynced;
  if (last_error_.starts_with("list")) worked();
  changed_();
  co_return Result<>();
}

Result<> Reflector::take_page(std::string_view body, std::string& more) {
  auto json = parse_json(body, {.bytes_max = kPageBytesMax, .nodes_max = 8u << 20, .depth_max = 64});
  if (!json) return within("list", std::move(json).error());
  const Json* items = json->find("items");
  const Json* version = json->find_path({"metadata", "resourceVersion"});
  const Json* next = json->find_path({"metadata", "continue"});
  if (!items || !(items->is_array() || items->is_null()) || !version || !version->is_string() || version->text.empty()) {
    return fail(Code::kDataLoss, "a list without items or resourceVersion");
  }
  version_ = version->text;
  if (next && next->is_string()) more = next->text;
  for (const Json& item : items->items) store_.put(item);
  return {};
}

net::Task<Result<>> Reflector::watch() {
  ++counts_.watches;
  const int64_t seconds = client_.timing().watch_min.count();
  KubeClient::Ask ask;
  ask.target = target(cat("watch=1&allowWatchBookmarks=true&resourceVersion=", query_escaped(version_),
                          "&timeoutSeconds=", seconds + static_cast<int64_t>(prng_.below(static_cast<uint64_t>(seconds) + 1))));
  ask.body_timeout = client_.timing().watch_quiet;
  ask.cancel = &cancel_;
  const int64_t began_ms = client_.clock().now_ms();
  const uint64_t events_before = counts_.events;
  BATON_CO_TRY(auto stream, co_await client_.open(ask));
  heard_ms_ = client_.clock().now_ms();
  if (stream->status() != 200) {
    wait_at_least_ = retry_after({stream->status(), stream->headers(), ""});
    auto body = co_await stream->read();
    co_return std::unexpected(status_error(stream->status(), body ? *body : ""));
  }
  BATON_CO_OK(co_await follow(*stream));
  if (listed_ms_ + client_.timing().resync.count() < client_.clock().now_ms()) relist_ = true;
  const int64_t lives_ms = std::min(kWatchLivesMs, client_.timing().watch_quiet.count() / 2);
  if (counts_.events == events_before && client_.clock().now_ms() - began_ms < lives_ms) {
    co_return fail(Code::kUnavailable, "the watch ended at once");
  }
  worked();
  co_return Result<>();
}

// Until the stream ends, however it ends: the next watch goes on from the last version seen.
net::Task<Result<>> Reflector::follow(net::ResponseStream& stream) {
  WatchDecoder decoder(kWatchEventBytesMax);
  std::vector<WatchEvent> events;
  for (;;) {
    auto bytes = co_await stream.read();
    if (!bytes || bytes->empty()) co_return Result<>();
    heard_ms_ = client_.clock().now_ms();
    events.clear();
    const auto fed = decoder.feed(*bytes, events);
    const auto applied = apply(events);  // what came whole before a broken one counts
    changed_();
    BATON_CO_OK(applied);
    BATON_CO_OK(fed);
  }
}

Result<> Reflector::apply(const std::vector<WatchEvent>& events) {
  for (const WatchEvent& event : events) {
    switch (event.type) {
      case WatchEvent::Type::kPut:
        store_.put(event.object);
        break;
      case WatchEvent::Type::kErase:
        store_.erase(event.object);
        break;
      case WatchEvent::Type::kBookmark:
        break;
      case WatchEvent::Type::kError: {
        const Json* said = event.object.find("message");
        const std::string message = said && said->is_string() ? said->text.substr(0, kTextBytesMax) : "";
        return fail(event.error_code == kGone ? Code::kOutOfRange : Code::kDataLoss, "watch ended with ", event.error_code, ": ",
                    message);
      }
    }
    version_ = event.version;
    ++counts_.events;
    if (!last_error_.empty()) worked();
    backoff_.reset();
  }
  return {};
}

void Reflector::worked() {
  backoff_.reset();
  if (!last_error_.empty()) log_info("kubernetes answers again", "resource={} namespace={}", full_name(resource_), resource_.ns);
  last_error_.clear();
}

net::Task<> Reflector::pause(const Error& error) {
  tried_ = true;
  const KubeTiming& timing = client_.timing();
  const bool denied = error.code == Code::kPermissionDenied;
  if (state_ != State::kSynced) {
    state_ = error.code == Code::kNotFound ? State::kMissing : denied ? State::kDenied : State::kStarting;
  }
  complain(error);
  changed_();
  net::Millis delay = std::max(backoff_.next(), std::exchange(wait_at_least_, net::Millis(0)));
  if (state_ == State::kMissing || (state_ == State::kDenied && resource_.optional))
    delay = std::max(delay, timing.probe_missing);
  co_await net::sleep_for(delay, &cancel_);
}

void Reflector::complain(const Error& error) {
  const bool denied = error.code == Code::kPermissionDenied, missing = state_ == State::kMissing;
  if (denied) ++counts_.denied;
  if (!missing) ++counts_.errors;
  const std::string now = cat(verb_, ' ', code_name(error.code));
  const bool known = last_error_.starts_with(now);
  last_error_ = cat(now, ": ", error.message);
  if (known) return log_debug("kubernetes request failed again", "resource={} error=\"{}\"", full_name(resource_), last_error_);
  const LogLevel level = (missing || (denied && resource_.optional)) ? LogLevel::kInfo
                         : denied                                    ? LogLevel::kError
                                                                     : LogLevel::kWarn;
  if (denied) {
    const std::string who = client_.account();
    return log_line(level, "kubernetes denies access",
                    fmt::format("verb={} resource={} namespace={} account={} said=\"{}\" fix=\"{}\"", verb_, full_name(resource_),
                                resource_.ns, who, error.message, rbac_command(resource_, "get,list,watch", who)));
  }
  if (missing)
    return log_line(level, "kubernetes kind not installed",
                    fmt::format("resource={}/{}", full_name(resource_), resource_.version));
  log_line(
      level, "kubernetes request failed, keeping what is known",
      fmt::format("verb={} resource={} namespace={} error=\"{}\"", verb_, full_name(resource_), resource_.ns, error.message));
}

}  // namespace baton::discovery
