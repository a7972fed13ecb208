// Any bytes as events: an error, or events that survive being written and read again, and that the index takes.
#include <cstdlib>

#include "route/kv_event_codec.h"
#include "route/kv_event_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::route;
  const auto batch = decode_kv_events({reinterpret_cast<const char*>(data), size});
  if (!batch) return 0;
  const auto again = decode_kv_events(encode_kv_events(*batch, size % 2 == 0 ? KvForm::kArray : KvForm::kMap));
  if (!again || again->events.size() != batch->events.size()) std::abort();
  KvEventsParams params;
  params.block_tokens = 2;
  params.blocks_max = 50;
  KvEventIndex index(params);
  index.apply(1, "m", *batch);
  index.apply(2, "m", *again);
  if (index.counts().blocks > 50) std::abort();
  for (const KvEvent& event : batch->events) {
    const auto* stored = std::get_if<BlockStored>(&event);
    KvMatch match;
    if (stored != nullptr) index.match(index.keys("m", stored->tokens), match);
  }
  index.forget(1);
  index.forget(2);
  if (index.counts().blocks != 0) std::abort();
  return 0;
}
