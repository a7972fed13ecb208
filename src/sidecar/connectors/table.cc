#include <algorithm>

#include "sidecar/connector.h"

namespace baton::sidecar {

std::span<const ConnectorRow> connectors() {
  static constexpr ConnectorRow kRows[] = {
      {"nixlv2", make_nixlv2},
      {"nixl", make_nixlv2, "nixlv2"},
  };
  return kRows;
}

const ConnectorRow* find_connector(std::string_view name) {
  auto rows = connectors();
  auto at = std::ranges::find(rows, name, &ConnectorRow::name);
  return at == rows.end() ? nullptr : &*at;
}

}  // namespace baton::sidecar
