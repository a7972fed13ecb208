#include "discovery/kube_client.h"

#include <algorithm>
#include <charconv>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "discovery/kube_files.h"
#include "discovery/limits.h"

namespace baton::discovery {
namespace {

constexpr int64_t kExpiryMarginS = 10;  // a credential this close to its end is renewed first
constexpr size_t kMessageBytesMax = 500;

// It becomes a header field.
bool plain(std::string_view token) {
  return std::ranges::all_of(token, [](unsigned char c) { return c > ' ' && c < 0x7f; });
}

Code code_of(int status) {
  switch (status) {
    case 400:
    case 422:
      return Code::kInvalidArgument;
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kPermissionDenied;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kAborted;
    case 410:
      return Code::kOutOfRange;
    case 429:
      return Code::kResourceExhausted;
    default:
      return status >= 500 ? Code::kUnavailable : Code::kUnknown;
  }
}

}  // namespace

KubeClient::KubeClient(KubeAccess access, KubeTiming timing, const Clock& clock)
    : access_(std::move(access)), timing_(timing), clock_(clock), token_(access_.token), client_(16) {}

Result<> KubeClient::check() {
  BATON_OK(renew(false));
  return tls_ ? Result<>() : make_tls();
}

Result<> KubeClient::make_tls() {
  if (!access_.tls) return {};
  const bool own = exec_ && !exec_->cert_pem.empty();
  net::TlsClientOptions options;
  options.verify = access_.verify;
  options.ca_file = access_.ca_file;
  options.ca_pem = access_.ca_pem;
  options.cert_pem = own ? exec_->cert_pem : access_.cert_pem;
  options.key_pem = own ? exec_->key_pem : access_.key_pem;
  if (!own) options.cert_file = access_.cert_file;
  if (!own) options.key_file = access_.key_file;
  BATON_TRY(tls_, net::TlsClient::make(std::move(options)));
  return {};
}

Result<> KubeClient::renew(bool refused) {
  if (access_.exec) BATON_OK(run_plugin(refused));
  const int64_t now_ms = clock_.now_ms();
  if (!refused && files_read_ms_ >= 0 && now_ms - files_read_ms_ < timing_.token_age.count()) return {};
  const bool first = files_read_ms_ < 0;
  files_read_ms_ = now_ms;
  std::string tls_files;
  for (const std::string* path : {&access_.ca_file, &access_.cert_file, &access_.key_file}) {
    if (!path->empty()) tls_files += read_file(*path, kKubeconfigBytesMax).value_or("");
  }
  if (std::exchange(tls_files_, tls_files) != tls_files && !first) {
    if (auto made = make_tls(); !made)
      log_warn("kubernetes certificates not renewed, keeping the old ones", "error=\"{}\"", made.error().message);
  }
  if (access_.token_file.empty()) return {};
  auto read = read_token();
  if (!read && first) return read;
  if (!read) log_warn("kubernetes token not renewed, keeping the old one", "error=\"{}\"", read.error().message);
  return {};
}

Result<> KubeClient::read_token() {
  BATON_TRY(const std::string text, read_file(access_.token_file, kTokenBytesMax));
  std::string token = trimmed(text);
  if (token.empty() || !plain(token)) return fail(Code::kUnauthenticated, access_.token_file, " holds no token");
  token_ = std::move(token);
  return {};
}

Result<> KubeClient::run_plugin(bool refused) {
  const bool ended = exec_ && exec_->expires_s && *exec_->expires_s - unix_seconds() < kExpiryMarginS;
  if (exec_ && !ended && !refused) return {};
  auto fresh = run_exec_plugin(access_, timing_.exec_timeout);
  if (fresh && !plain(fresh->token)) fresh = fail(Code::kUnauthenticated, "the credential plugin's token has white space in it");
  if (!fresh) {
    if (!exec_) return std::unexpected(std::move(fresh).error());
    log_warn("kubernetes credential not renewed, keeping the old one", "error=\"{}\"", fresh.error().message);
    return {};
  }
  const bool other = !fresh->cert_pem.empty() && (!exec_ || exec_->cert_pem != fresh->cert_pem);
  exec_ = *std::move(fresh);
  token_ = exec_->token;
  return other ? make_tls() : Result<>();
}

Result<net::Call> KubeClient::call_for(const Ask& ask) {
  BATON_OK(renew(false));
  net::Call call;
  call.host = access_.host;
  call.port = access_.port;
  call.tls = tls_;
  call.server_name = access_.server_name;
  call.method = ask.method;
  call.target = access_.base_path + ask.target;
  call.headers.set("accept", "application/json");
  call.headers.set("user-agent", "baton-router");
  if (!token_.empty()) call.headers.set("authorization", "Bearer " + token_);
  if (!ask.body.empty()) call.headers.set("content-type", ask.content_type);
  call.body = ask.body;
  call.connect_timeout = timing_.connect_timeout;
  call.first_byte_timeout = ask.answer_timeout > net::Millis(0) ? ask.answer_timeout : timing_.answer_timeout;
  call.idle_timeout = ask.body_timeout > net::Millis(0) ? ask.body_timeout : timing_.body_timeout;
  call.body_bytes_max = ask.bytes_max > 0 ? ask.bytes_max : kAnswerBytesMax;
  call.cancel = ask.cancel;
  return call;
}

net::Task<Result<net::Response>> KubeClient::fetch(const Ask& ask) {
  BATON_CO_TRY(net::Call call, call_for(ask));
  BATON_CO_TRY(net::Response response, co_await client_.fetch(std::move(call)));
  if (response.status != 401) co_return response;
  BATON_CO_OK(renew(true));
  BATON_CO_TRY(net::Call again, call_for(ask));
  co_return co_await client_.fetch(std::move(again));
}

net::Task<Result<std::unique_ptr<net::ResponseStream>>> KubeClient::open(const Ask& ask) {
  BATON_CO_TRY(net::Call call, call_for(ask));
  BATON_CO_TRY(auto stream, co_await client_.open(std::move(call)));
  if (stream->status() != 401) co_return std::move(stream);
  BATON_CO_OK(renew(true));
  BATON_CO_TRY(net::Call again, call_for(ask));
  co_return co_await client_.open(std::move(again));
}

std::string KubeClient::account() const {
  const std::string subject = subject_of_token(token_);
  return subject.empty() ? access_.origin : subject;
}

Error status_error(int status, std::string_view body) {
  std::string message;
  if (auto json =
          parse_json(body.substr(0, kAnswerBytesMax), {.bytes_max = kAnswerBytesMax, .nodes_max = 10'000, .depth_max = 32})) {
    const Json* said = json->find("message");
    if (said && said->is_string()) message = said->text;
  }
  if (message.size() > kMessageBytesMax) message = message.substr(0, kMessageBytesMax) + "...";
  std::ranges::replace_if(message, [](unsigned char c) { return c < ' ' || c == '"'; }, '\'');
  return {code_of(status), cat("HTTP ", status, message.empty() ? "" : ": ", message)};
}

net::Millis retry_after(const net::Response& response) {
  const auto field = response.headers.get("retry-after");
  int seconds = 0;
  if (field) std::from_chars(field->data(), field->data() + field->size(), seconds);
  return std::chrono::seconds(std::clamp(seconds, 0, 60));
}

std::string query_escaped(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char raw : text) {
    const auto c = static_cast<unsigned char>(raw);
    const bool free = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
                      c == '_' || c == '~';
    if (free) {
      out.push_back(raw);
    } else {
      out += {'%', kHex[c >> 4], kHex[c & 15]};
    }
  }
  return out;
}

}  // namespace baton::discovery
