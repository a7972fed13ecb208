#include "discovery/kube_client.h"

#include <algorithm>
#include <charconv>

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
  BATON_OK(set_tls(access_.cert_pem, access_.key_pem));
  return renew(false);
}

Result<> KubeClient::set_tls(const std::string& cert_pem, const std::string& key_pem) {
  if (!access_.tls) return {};
  net::TlsClientOptions options;
  options.verify = access_.verify;
  options.ca_file = access_.ca_file;
  options.ca_pem = access_.ca_pem;
  options.cert_pem = cert_pem;
  options.key_pem = key_pem;
  options.cert_file = cert_pem.empty() ? access_.cert_file : "";
  options.key_file = key_pem.empty() ? access_.key_file : "";
  return fail(Code::kUnimplemented, "https to the API server");
}

Result<> KubeClient::renew(bool refused) {
  if (access_.exec) return run_plugin(refused);
  if (!access_.token_file.empty()) return read_token(refused);
  return {};
}

Result<> KubeClient::read_token(bool refused) {
  const int64_t now_ms = clock_.now_ms();
  if (!refused && token_read_ms_ >= 0 && now_ms - token_read_ms_ < timing_.token_age.count()) return {};
  const bool first = token_read_ms_ < 0;
  token_read_ms_ = now_ms;
  auto text = read_small_file(access_.token_file, kTokenBytesMax);
  std::string token = text ? trimmed(*text) : "";
  if (text && !token.empty() && plain(token)) {
    token_ = std::move(token);
    return {};
  }
  Error error = text ? Error{Code::kUnauthenticated, cat(access_.token_file, " holds no token")} : std::move(text).error();
  if (first) return std::unexpected(std::move(error));
  log_warn("kubernetes token not renewed, keeping the old one", "error=\"{}\"", error.message);
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
  if (!fresh->cert_pem.empty() && (!exec_ || exec_->cert_pem != fresh->cert_pem)) BATON_OK(set_tls(fresh->cert_pem, fresh->key_pem));
  exec_ = *std::move(fresh);
  token_ = exec_->token;
  return {};
}

Result<net::Call> KubeClient::call_for(const Ask& ask) {
  BATON_OK(renew(false));
  net::Call call;
  call.host = access_.host;
  call.port = access_.port;
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
  if (auto json = parse_json(body.substr(0, kAnswerBytesMax), {.bytes_max = kAnswerBytesMax, .nodes_max = 10'000, .depth_max = 32})) {
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
    const bool free = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
    if (free) {
      out.push_back(raw);
    } else {
      out += {'%', kHex[c >> 4], kHex[c & 15]};
    }
  }
  return out;
}

}  // namespace baton::discovery
