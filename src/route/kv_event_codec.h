#pragma once
// decode_kv_events(): the MessagePack payload of one ZeroMQ message to a KvEventBatch. Takes array and map forms, every optional
// trailing field or none, hashes as integers or bytes; unknown events and fields are skipped. Not nlohmann's reader: that recurses
// as deep as the text nests.
// Guarantees: untrusted bytes; memory is bounded by the payload's size, nesting by kKvDepthMax.
// Source: facts sheet "epp" 4.7 precise-prefix-cache-producer.
#include <string>
#include <string_view>

#include "base/result.h"
#include "route/kv_events.h"

namespace baton::route {

inline constexpr int kKvDepthMax = 16;
inline constexpr size_t kKvPayloadBytesMax = 64u << 20;  // vLLM batches one step's events: kilobytes
inline constexpr size_t kKvTextBytesMax = 1024;          // names and extra keys; longer ones are cut

Result<KvEventBatch> decode_kv_events(std::string_view payload);
// As vLLM writes it: for tests and for simulated engines. compact: trailing defaults left out; map: the map form.
enum class KvForm { kArray, kMap };
std::string encode_kv_events(const KvEventBatch& batch, KvForm form = KvForm::kArray);

// "kv@<pod>@<model>" to its parts; another shape is all pod, without a model.
struct KvTopic {
  std::string_view pod, model;
};
KvTopic parse_kv_topic(std::string_view topic);

}  // namespace baton::route
