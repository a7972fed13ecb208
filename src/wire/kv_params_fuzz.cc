// Any object as kv_transfer_params: no crash, and what is accepted survives being written and read again.
#include "wire/kv_params.h"
#include "wire/limits.h"

using namespace baton;
using namespace baton::wire;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto json = parse_json({reinterpret_cast<const char*>(data), size}, kRequestJson);
  if (!json) return 0;
  auto params = parse_kv_params(*json);
  if (!params) return 0;
  const std::string once = format_kv_params(*params);
  auto again = parse_json(once);
  BATON_CHECK(again.has_value());
  auto back = parse_kv_params(*again);
  BATON_CHECK(back.has_value() && format_kv_params(*back) == once);
  BATON_CHECK(params->remote_block_ids.size() <= kRemoteBlocksMax);
  return 0;
}
