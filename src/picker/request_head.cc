#include "picker/request_head.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "picker/limits.h"

namespace baton::picker {
namespace {

constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// What agents of today send along; only with the agent-identity plugin.
constexpr std::array<std::string_view, 4> kAgentHeaders = {"x-claude-code-session-id", "x-session-affinity", "session-id",
                                                           "session_id"};

double positive_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value > 0 && value < 1e9 ? value : 0;
}

std::string_view cookie(std::string_view header, std::string_view name) {
  while (!header.empty()) {
    const size_t end = std::min(header.find(';'), header.size());
    std::string_view one = header.substr(0, end);
    header.remove_prefix(std::min(end + 1, header.size()));
    while (one.starts_with(' ')) one.remove_prefix(1);
    const size_t equals = one.find('=');
    if (equals != std::string_view::npos && one.substr(0, equals) == name) return one.substr(equals + 1);
  }
  return {};
}

// The first of the plan's sources, in the plan's order, that the request has.
std::string_view find_session(std::span<const HeaderField> headers, const route::SessionParams& session) {
  const auto value_of = [&](std::string_view name) -> std::string_view {
    const auto at = std::ranges::find(headers, name, &HeaderField::name);
    return at == headers.end() ? std::string_view() : at->value;
  };
  for (const std::string& name : session.headers) {
    if (const std::string_view v = value_of(name); !v.empty()) return v;
  }
  if (session.cookies.empty()) return {};
  const std::string_view cookies = value_of("cookie");
  for (const std::string& name : session.cookies) {
    if (const std::string_view v = cookie(cookies, name); !v.empty()) return v;
  }
  return {};
}

}  // namespace

RequestHead read_head(std::span<const HeaderField> headers, const route::Plan& plan) {
  RequestHead out;
  std::string_view agent;
  const auto take = [](std::string_view& to, std::string_view value, bool alias) {
    if (value.size() <= kHeaderValueBytesMax && (to.empty() || !alias)) to = value;
  };
  const auto take_number = [](double& to, std::string_view value, bool alias) {
    if (const double n = positive_number(value); n > 0 && (to == 0 || !alias)) to = n;
  };
  for (const auto& [name, value] : headers) {
    if (name == "prefer") {
      out.if_available = out.if_available || value.find("if-available") != std::string_view::npos;
    } else if (name.starts_with("x-llm-d-")) {
      const std::string_view rest = name.substr(8);
      if (rest == "inference-objective")
        take(out.objective, value, false);
      else if (rest == "inference-fairness-id")
        take(out.fairness_id, value, false);
      else if (rest == "model-name-rewrite")
        take(out.model_rewrite, value, false);
      else if (rest == "slo-ttft-ms")
        take_number(out.ttft_slo_ms, value, false);
      else if (rest == "slo-tpot-ms")
        take_number(out.tpot_slo_ms, value, false);
    } else if (name.starts_with("x-gateway-")) {
      const std::string_view rest = name.substr(10);
      if (rest == "inference-objective")
        take(out.objective, value, true);
      else if (rest == "inference-fairness-id")
        take(out.fairness_id, value, true);
      else if (rest == "model-name-rewrite")
        take(out.model_rewrite, value, true);
    } else if (name == "content-length") {
      std::from_chars(value.data(), value.data() + value.size(), out.body_bytes);
    } else if (name == "x-slo-ttft-ms") {
      take_number(out.ttft_slo_ms, value, true);
    } else if (name == "x-slo-tpot-ms") {
      take_number(out.tpot_slo_ms, value, true);
    } else if (name == "x-session-token") {
      take(out.session_token, value, false);
    } else if (plan.agent_identity && agent.empty() && std::ranges::find(kAgentHeaders, name) != kAgentHeaders.end()) {
      take(agent, value, true);
    }
  }
  if (out.fairness_id.empty()) out.fairness_id = agent;
  if (plan.needs.session && !plan.session.encoded_endpoint) {
    out.session_id = find_session(headers, plan.session);
    if (out.session_id.size() > kHeaderValueBytesMax) out.session_id = {};
  }
  return out;
}

std::string base64_encode(std::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    for (size_t k = 0; k < 3; ++k) word = word << 8 | (k < n ? static_cast<unsigned char>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k) out += k <= n ? kDigits[word >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::string base64_decode(std::string_view text) {
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string out;
  uint32_t word = 0;
  int bits = 0;
  for (char c : text) {
    const size_t digit = c == '-' ? 62 : c == '_' ? 63 : kDigits.find(c);
    if (digit == std::string_view::npos) return {};
    word = word << 6 | static_cast<uint32_t>(digit);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    out += static_cast<char>(word >> bits & 255);
  }
  return out;
}

}  // namespace baton::picker
