// Any text as a configuration: no crash, no hang, and what loads prints as something that loads as equal.
#include "route/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const route::Loaded loaded = route::load_config(text, {.allow_experimental = true, .flow_control = size % 2 == 0});
  BATON_CHECK((loaded.plan == nullptr) == !loaded.errors.empty());
  if (!loaded.plan) return 0;
  const std::string printed = route::print_config(*loaded.plan);
  const route::Loaded again = route::load_config(printed, {.allow_experimental = true, .flow_control = false});
  BATON_CHECK(again.plan != nullptr && *again.plan == *loaded.plan);
  return 0;
}
