// FakeApi's body; the name makes it part of the tests alone.
#include "discovery/fake_api.h"

#include <algorithm>
#include <charconv>

#include "discovery/kube_objects.h"

namespace baton::discovery {
namespace {

// The value of one query parameter, decoded.
std::string parameter(const std::string& query, const std::string& key) {
  for (size_t at = 0; at < query.size();) {
    const size_t end = std::min(query.find('&', at), query.size());
    const std::string part = query.substr(at, end - at);
    at = end + 1;
    if (!part.starts_with(key + "=")) continue;
    std::string out;
    for (size_t i = key.size() + 1; i < part.size(); ++i) {
      if (part[i] == '%') {
        out.push_back(static_cast<char>(std::stoi(part.substr(i + 1, 2), nullptr, 16)));
        i += 2;
      } else {
        out.push_back(part[i]);
      }
    }
    return out;
  }
  return "";
}

std::string with_version(const std::string& object, uint64_t version) {
  auto json = parse_json(object);
  BATON_CHECK(json.has_value());
  const std::string text = cat('"', version, '"');
  if (const Json* old = json->find_path({"metadata", "resourceVersion"})) {
    return object.substr(0, old->begin) + text + object.substr(old->end);
  }
  const size_t at = json->find("metadata")->begin + 1;
  return cat(object.substr(0, at), "\"resourceVersion\":", text, ",", object.substr(at));
}

bool matches(const std::string& object, const std::string& labels, const std::string& name) {
  const auto json = parse_json(object);
  if (!name.empty() && name != "metadata.name=" + object_name(*json)) return false;
  const auto pod = parse_pod(*json);
  std::map<std::string, std::string> wanted;
  for (size_t at = 0; at < labels.size();) {
    const size_t end = std::min(labels.find(',', at), labels.size());
    const std::string term = labels.substr(at, end - at);
    at = end + 1;
    wanted[term.substr(0, term.find('='))] = term.substr(term.find('=') + 1);
  }
  return selects(wanted, pod->labels);
}

std::string event_line(const std::string& type, const std::string& object) {
  return cat(R"({"type":")", type, R"(","object":)", object, "}\n");
}

net::Response failure(int status, const std::string& message) {
  return net::Response::json(
      status, cat(R"({"kind":"Status","status":"Failure","code":)", status, R"(,"message":)", json_string(message), "}"));
}

}  // namespace

FakeApi::FakeApi(std::shared_ptr<net::TlsServer> tls) : tls_(std::move(tls)) { start(); }

void FakeApi::start() {
  net::ServerOptions options;
  options.port = port_;
  options.tls = tls_;
  server_ = std::make_unique<net::Server>(options, [this]() -> net::Handler {
    return [this](net::Request& request, net::ResponseWriter& writer) { return answer(request, writer); };
  });
  BATON_CHECK(server_->start().has_value());
  port_ = server_->port();
}

void FakeApi::stop() {
  if (server_) server_->stop(net::Millis(0));
  server_.reset();
  std::lock_guard lock(mutex_);
  watchers_.clear();
}

KubeAccess FakeApi::access() const {
  KubeAccess out;
  out.tls = tls_ != nullptr;
  out.host = "127.0.0.1";
  out.port = port_;
  out.origin = "test";
  return out;
}

void FakeApi::install(const std::string& kind) {
  std::lock_guard lock(mutex_);
  kinds_[kind];
}

void FakeApi::store(const std::string& kind, const std::string& name, const std::string& object) {
  const bool fresh = !kinds_[kind].contains(name);
  const std::string text = with_version(object, ++version_);
  // A change of labels takes an object out of a watch's sight, or into it.
  const std::string before = fresh ? "" : kinds_[kind][name];
  kinds_[kind][name] = text;
  history_.push_back({version_, kind, fresh ? "ADDED" : "MODIFIED", text});
  for (Watcher& watcher : watchers_) {
    if (watcher.kind != kind) continue;
    const bool had = !fresh && matches(before, watcher.labels, watcher.name), has = matches(text, watcher.labels, watcher.name);
    if (had || has) watcher.lines->push(event_line(!has ? "DELETED" : had ? "MODIFIED" : "ADDED", text));
  }
}

void FakeApi::put(const std::string& kind, const std::string& object) {
  std::lock_guard lock(mutex_);
  store(kind, object_name(*parse_json(object)), object);
}

void FakeApi::erase(const std::string& kind, const std::string& name) {
  std::lock_guard lock(mutex_);
  const std::string text = with_version(kinds_[kind][name], ++version_);
  kinds_[kind].erase(name);
  history_.push_back({version_, kind, "DELETED", text});
  for (Watcher& watcher : watchers_) {
    if (watcher.kind == kind && matches(text, watcher.labels, watcher.name)) watcher.lines->push(event_line("DELETED", text));
  }
}

std::string FakeApi::text(const std::string& kind, const std::string& name) const {
  std::lock_guard lock(mutex_);
  const auto at = kinds_.find(kind);
  if (at == kinds_.end() || !at->second.contains(name)) return "";
  return at->second.at(name);
}

void FakeApi::bookmark() {
  std::lock_guard lock(mutex_);
  const std::string line = event_line("BOOKMARK", cat(R"({"metadata":{"resourceVersion":")", ++version_, R"("}})"));
  for (Watcher& watcher : watchers_) watcher.lines->push(line);
}

void FakeApi::cut_watches() {
  std::lock_guard lock(mutex_);
  for (Watcher& watcher : watchers_) watcher.lines->close();
  watchers_.clear();
}

void FakeApi::forget_history() {
  std::lock_guard lock(mutex_);
  history_.clear();
  oldest_ = ++version_;
}

void FakeApi::fault(const std::string& what, Fault fault, int times) {
  std::lock_guard lock(mutex_);
  for (int i = 0; i < times; ++i) faults_[what].push_back(fault);
}

void FakeApi::need_token(std::string token) {
  std::lock_guard lock(mutex_);
  token_ = std::move(token);
}

int FakeApi::count(const std::string& what) const {
  std::lock_guard lock(mutex_);
  const auto at = counts_.find(what);
  return at == counts_.end() ? 0 : at->second;
}

bool FakeApi::wait_count(const std::string& what, int at_least) const {
  std::unique_lock lock(mutex_);
  return counted_.wait_for(lock, std::chrono::seconds(30), [&] {
    const auto at = counts_.find(what);
    return at != counts_.end() && at->second >= at_least;
  });
}

std::vector<std::string> FakeApi::targets() const {
  std::lock_guard lock(mutex_);
  return targets_;
}

std::optional<FakeApi::Fault> FakeApi::take_fault(const std::string& what) {
  std::lock_guard lock(mutex_);
  ++counts_[what];
  counted_.notify_all();
  auto& queue = faults_[what];
  if (queue.empty()) return std::nullopt;
  Fault out = queue.front();
  queue.erase(queue.begin());
  return out;
}

net::Task<> FakeApi::misbehave(Fault fault, net::ResponseWriter& writer) {
  if (fault.hang) {
    net::Mailbox<int> never;
    auto guard = writer.cancel().on_cancel([&] { never.close(); });
    co_await never.pop();
    co_return;
  }
  if (fault.status == 0) {
    (void)co_await writer.begin(200, {{"content-type", "application/json"}});
    (void)co_await writer.write(fault.raw);
    if (!fault.cut) (void)co_await writer.finish();
    co_return;
  }
  net::Response response = net::Response::json(fault.status, fault.body);
  for (const auto& [name, value] : fault.headers.fields()) response.headers.set(name, value);
  (void)co_await writer.send(std::move(response));
}

net::Task<> FakeApi::answer(net::Request& request, net::ResponseWriter& writer) {
  std::string kind = request.path, name;
  bool known = false, allowed = true;
  {
    std::lock_guard lock(mutex_);
    targets_.push_back(request.method + " " + request.target);
    allowed = token_.empty() || request.headers.get("authorization") == "Bearer " + token_;
    known = kinds_.contains(kind);
    if (const size_t slash = kind.rfind('/'); !known && kinds_.contains(kind.substr(0, slash))) {
      name = kind.substr(slash + 1);
      kind.resize(slash);
      known = true;
    }
  }
  const bool watching = parameter(request.query, "watch") == "1";
  const std::string verb = watching                  ? "watch"
                           : request.method != "GET" ? (request.method == "PUT" ? "put" : "post")
                           : name.empty()            ? "list"
                                                     : "get";
  auto fault = take_fault(cat(verb, ' ', kind.substr(kind.rfind('/') + 1)));
  if (!allowed) {
    (void)co_await writer.send(failure(401, "Unauthorized"));
  } else if (fault) {
    co_await misbehave(*fault, writer);
  } else if (!known) {
    (void)co_await writer.send(failure(404, "the server could not find the requested resource"));
  } else if (watching) {
    co_await watch(request, writer, kind);
  } else if (request.method != "GET") {
    (void)co_await writer.send(write(request, kind, name));
  } else {
    (void)co_await writer.send(name.empty() ? list(request, kind) : one(request, kind, name));
  }
}

net::Response FakeApi::one(const net::Request&, const std::string& kind, const std::string& name) {
  const std::string found = text(kind, name);
  return found.empty() ? failure(404, name + " not found") : net::Response::json(200, found);
}

net::Response FakeApi::write(const net::Request& request, const std::string& kind, const std::string& name) {
  const auto json = parse_json(request.body);
  if (!json || object_name(*json).empty()) return failure(400, "no object");
  const std::string key = name.empty() ? object_name(*json) : name;
  std::lock_guard lock(mutex_);
  const bool there = kinds_[kind].contains(key);
  if (request.method == "POST") {
    if (there) return failure(409, "already exists");
  } else {
    if (!there) return failure(404, "not found");
    const Json* theirs = json->find_path({"metadata", "resourceVersion"});
    const auto ours = parse_json(kinds_[kind][key]);
    if (theirs && theirs->text != ours->find_path({"metadata", "resourceVersion"})->text)
      return failure(409, "the object has been modified");
  }
  store(kind, key, request.body);
  return net::Response::json(there ? 200 : 201, kinds_[kind][key]);
}

net::Response FakeApi::list(const net::Request& request, const std::string& kind) {
  const std::string labels = parameter(request.query, "labelSelector"), name = parameter(request.query, "fieldSelector");
  const std::string after = parameter(request.query, "continue"), limit_text = parameter(request.query, "limit");
  const size_t limit = limit_text.empty() ? SIZE_MAX : std::stoul(limit_text);
  std::lock_guard lock(mutex_);
  std::string items, last;
  size_t n = 0;
  bool more = false;
  for (const auto& [key, object] : kinds_[kind]) {
    if (key <= after || !matches(object, labels, name)) continue;
    if (n == limit) {
      more = true;
      break;
    }
    items += cat(n++ ? "," : "", object);
    last = key;
  }
  return net::Response::json(200, cat(R"({"kind":"List","metadata":{"resourceVersion":")", version_, "\"",
                                      more ? cat(R"(,"continue":)", json_string(last)) : "", R"(},"items":[)", items, "]}"));
}

net::Task<> FakeApi::watch(net::Request& request, net::ResponseWriter& writer, const std::string& kind) {
  auto lines = std::make_shared<net::Mailbox<std::string>>();
  Watcher watcher{kind, parameter(request.query, "labelSelector"), parameter(request.query, "fieldSelector"), lines};
  uint64_t from = 0;
  const std::string version = parameter(request.query, "resourceVersion");
  std::from_chars(version.data(), version.data() + version.size(), from);
  bool gone = false;
  {
    std::lock_guard lock(mutex_);
    gone = from < oldest_ || from > version_;
    for (const Event& event : history_) {
      if (event.version > from && event.kind == kind && matches(event.text, watcher.labels, watcher.name)) {
        lines->push(event_line(event.type, event.text));
      }
    }
    if (!gone) watchers_.push_back(watcher);
  }
  auto guard = writer.cancel().on_cancel([lines] { lines->close(); });
  (void)co_await writer.begin(200, {{"content-type", "application/json"}});
  if (gone) {
    (void)co_await writer.write(event_line("ERROR", R"({"kind":"Status","code":410,"message":"too old resource version"})"));
    (void)co_await writer.finish();
    co_return;
  }
  while (auto line = co_await lines->pop()) {
    if (!co_await writer.write(*line)) break;
  }
  std::lock_guard lock(mutex_);
  std::erase_if(watchers_, [&](const Watcher& w) { return w.lines == lines; });
}

std::string pod_json(const std::string& name, const std::string& ip, const std::string& labels, bool ready,
                     const std::string& more_metadata) {
  return cat(R"({"metadata":{"name":")", name, R"(","labels":{)", labels, "}", more_metadata,
             R"(},"spec":{"nodeName":"node-1"},)", R"("status":{"podIP":")", ip, R"(","podIPs":[{"ip":")", ip,
             R"("}],"conditions":[{"type":"Ready","status":")", ready ? "True" : "False", R"("}]}})");
}

std::string pool_json(const std::string& name, const std::string& selector, const std::string& ports) {
  std::string list;
  for (size_t at = 0; at < ports.size();) {
    const size_t end = std::min(ports.find(',', at), ports.size());
    list += cat(list.empty() ? "" : ",", R"({"number":)", ports.substr(at, end - at), "}");
    at = end + 1;
  }
  return cat(R"({"metadata":{"name":")", name, R"("},"spec":{"selector":{"matchLabels":{)", selector, R"(}},"targetPorts":[)",
             list, R"(],"endpointPickerRef":{"name":"epp"}}})");
}

}  // namespace baton::discovery
