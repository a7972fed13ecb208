#pragma once
// Members: the endpoints of a pool as a file names them, YAML or JSON (which is YAML). The schema is llm-d's file-discovery,
//   endpoints: [{name, address, port, labels: {llm-d.ai/role: prefill}}]
// widened: the list may stand alone; `role`, `model` or `models`, `namespace`, `pod`, `rank`, `zone`... beside the labels;
// address may be a host name, IPv6 or host:port. A member of a pod is one target port of it, its data-parallel rank. Guarantees:
// all errors of a file together, each with its line; duplicates (same address and port) are an error; order is kept. Source:
// facts sheet "epp" 2.2, 5, 6.
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace baton::discovery {

struct Member {
  std::string host;  // IPv6 without brackets
  int port = 0;
  std::string role;                 // "prefill", "decode", ... as written; "" = not said
  std::vector<std::string> models;  // empty = ask the endpoint
  std::string name;                 // "<namespace>/<pod>-rank-<i>" where a pod is known
  std::map<std::string, std::string> labels;
  std::string ns{}, pod{};                       // namespace and pod, "" = not known
  int rank = 0;                                  // place of `port` among the pod's target ports
  std::string node{}, rack{}, zone{}, region{};  // where it runs, "" = not known
  std::vector<std::string> other_hosts{};        // further addresses of the same pod (dual stack)
  bool operator==(const Member&) const = default;
};

Result<std::vector<Member>> parse_members(std::string_view text);

}  // namespace baton::discovery
