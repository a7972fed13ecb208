#pragma once
// set(): one member of a JSON object, in the place of an older one or at the end; what is no object becomes one.
#include <string_view>
#include <utility>

#include "base/json.h"

namespace baton::text {

inline void set(Json& object, std::string_view key, Json value) {
  object.kind = Json::Kind::kObject;
  for (size_t i = 0; i < object.keys.size(); ++i) {
    if (object.keys[i] == key) {
      object.items[i] = std::move(value);
      return;
    }
  }
  object.keys.emplace_back(key);
  object.items.push_back(std::move(value));
}

}  // namespace baton::text
