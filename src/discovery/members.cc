#include "discovery/members.h"

#include <arpa/inet.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <set>

#include "discovery/limits.h"

namespace baton::discovery {
namespace {

constexpr std::string_view kRoleLabel = "llm-d.ai/role";
constexpr std::string_view kRoles[] = {"",       "both",           "prefill",        "decode",
                                       "encode", "encode-prefill", "prefill-decode", "encode-prefill-decode"};

// An IPv6 address in its one canonical spelling (RFC 5952), as proxies will name it; a zone ("%eth0") stays. "" if it is none.
std::string canonical_v6(const std::string& address) {
  const size_t percent = std::min(address.find('%'), address.size());
  in6_addr bytes;
  if (inet_pton(AF_INET6, address.substr(0, percent).c_str(), &bytes) != 1) return "";
  char out[INET6_ADDRSTRLEN];
  return inet_ntop(AF_INET6, &bytes, out, sizeof out) + address.substr(percent);
}

// Collects every error of the file, so that a person fixes it in one go.
class Reader {
 public:
  std::vector<Member> members;
  std::string errors;

  void read_all(const YAML::Node& root) {
    const YAML::Node list = root.IsMap() ? root["endpoints"] : root;
    if (root.IsMap() && !list) return error(root, "a map must have the key \"endpoints\"");
    if (list.IsNull()) return;  // `endpoints:` with nothing below it: an empty pool
    if (!list.IsSequence()) return error(list, "endpoints must be a list");
    if (list.size() > kMembersMax) return error(list, cat("more than ", kMembersMax, " endpoints"));
    std::set<std::pair<std::string, int>> seen;
    for (const YAML::Node& node : list) {
      if (!node.IsMap()) {
        error(node, "an endpoint must be a map with address and port");
        continue;
      }
      Member member = read(node);
      if (member.port > 0 && !seen.emplace(member.host, member.port).second) {
        error(node, cat("endpoint ", member.host, " port ", member.port, " is listed twice"));
      }
      members.push_back(std::move(member));
    }
  }

 private:
  void error(const YAML::Node& node, std::string_view message) {
    errors += cat(errors.empty() ? "" : "; ", "line ", node.Mark().line + 1, ": ", message);
  }

  std::string text(const YAML::Node& node, std::string_view what) {
    if (!node || node.IsNull()) return "";
    if (!node.IsScalar()) return error(node, cat(what, " must be a text")), "";
    if (node.Scalar().size() > kTextBytesMax) return error(node, cat(what, " is longer than ", kTextBytesMax, " bytes")), "";
    return node.Scalar();
  }

  void read_address(const YAML::Node& node, Member& out) {
    std::string address = text(node["address"], "address");
    std::string port = text(node["port"], "port");
    const size_t colon = address.rfind(':');
    if (address.starts_with('[')) {  // [v6] or [v6]:port
      const size_t close = std::min(address.find(']'), address.size());
      const std::string rest = close < address.size() ? address.substr(close + 1) : "";
      if (rest.starts_with(':') && port.empty()) port = rest.substr(1);
      if (!rest.empty() && !rest.starts_with(':')) error(node, "after [address] comes :port or nothing");
      address = canonical_v6(address.substr(1, close - 1));
    } else if (colon != std::string::npos && address.find(':') == colon && port.empty()) {  // host:port
      port = address.substr(colon + 1);
      address.resize(colon);
    } else if (colon != std::string::npos) {
      address = canonical_v6(address);
    }
    const bool printable =
        std::ranges::all_of(address, [](unsigned char c) { return c > ' ' && c < 0x7f && !std::strchr("/@?#[]", c); });
    if (address.empty() || !printable) error(node, "address must be a host name or IP address");
    const auto [end, status] = std::from_chars(port.data(), port.data() + port.size(), out.port);
    if (status != std::errc() || end != port.data() + port.size() || out.port < 1 || out.port > 65535) {
      error(node, cat("port must be 1 to 65535, got \"", port, "\""));
      out.port = 0;
    }
    out.host = address;
  }

  // Which pod it is and where it runs: fields of the entry, else the labels that Kubernetes would put on the pod.
  void read_place(const YAML::Node& node, Member& out) {
    const auto field = [&](const char* key, const char* label) {
      std::string value = text(node[key], key);
      const auto found = out.labels.find(label);
      return value.empty() && found != out.labels.end() ? found->second : value;
    };
    out.ns = text(node["namespace"], "namespace");
    out.pod = text(node["pod"], "pod");
    out.node = field("node", "kubernetes.io/hostname");
    out.rack = field("rack", "topology.kubernetes.io/rack");
    out.zone = field("zone", "topology.kubernetes.io/zone");
    out.region = field("region", "topology.kubernetes.io/region");
    const std::string rank = text(node["rank"], "rank");
    if (rank.empty()) return;
    const auto [end, status] = std::from_chars(rank.data(), rank.data() + rank.size(), out.rank);
    if (status != std::errc() || end != rank.data() + rank.size() || out.rank < 0 || out.rank > kRankMax) {
      error(node, cat("rank must be 0 to ", kRankMax, ", got \"", rank, "\""));
    }
  }

  Member read(const YAML::Node& node) {
    Member out;
    read_address(node, out);
    out.name = text(node["name"], "name");
    if (const YAML::Node labels = node["labels"]; labels && !labels.IsNull()) {
      if (!labels.IsMap() || labels.size() > kLabelsMax)
        error(labels, cat("labels must be a map of at most ", kLabelsMax, " entries"));
      else
        for (const auto& label : labels) out.labels[text(label.first, "label")] = text(label.second, "label");
    }
    out.role = text(node["role"], "role");
    if (const auto label = out.labels.find(std::string(kRoleLabel)); out.role.empty() && label != out.labels.end()) {
      out.role = label->second;
    }
    if (std::ranges::find(kRoles, out.role) == std::end(kRoles)) {
      error(node, cat("role must be prefill, decode or both, got \"", out.role, "\""));
    }
    read_place(node, out);
    if (const std::string model = text(node["model"], "model"); !model.empty()) out.models.push_back(model);
    if (const YAML::Node models = node["models"]; models && !models.IsNull()) {
      if (!models.IsSequence())
        error(models, "models must be a list");
      else
        for (const YAML::Node& model : models) out.models.push_back(text(model, "model"));
    }
    return out;
  }
};

}  // namespace

Result<std::vector<Member>> parse_members(std::string_view text) {
  if (text.size() > kFileBytesMax) return fail(Code::kInvalidArgument, "endpoints file is larger than ", kFileBytesMax, " bytes");
  Reader reader;
  try {
    reader.read_all(YAML::Load(std::string(text)));
  } catch (const std::exception& e) {
    return fail(Code::kInvalidArgument, "endpoints file is not YAML: ", e.what());
  }
  if (!reader.errors.empty()) return fail(Code::kInvalidArgument, "endpoints file: ", reader.errors);
  return std::move(reader.members);
}

}  // namespace baton::discovery
