#include <algorithm>

#include "sidecar/connector.h"

namespace baton::sidecar {

std::span<const ConnectorRow> connectors() {
  static constexpr ConnectorRow kRows[] = {
      {.name = "nixlv2", .make = make_nixlv2},
      {.name = "nixl", .make = make_nixlv2, .instead_of = "nixlv2"},
      {.name = "shared-storage", .make = make_shared_storage},
      {.name = "lmcache", .make = make_lmcache},
      {.name = "sglang", .make = make_sglang, .engine_reads_prompts = false},  // its decode mode refuses requests without a room
      {.name = "mooncake", .make = make_mooncake},
      {.name = "offloading", .make = make_offloading},
  };
  return kRows;
}

const ConnectorRow* find_connector(std::string_view name) {
  auto rows = connectors();
  auto at = std::ranges::find(rows, name, &ConnectorRow::name);
  return at == rows.end() ? nullptr : &*at;
}

}  // namespace baton::sidecar
