#pragma once
// What engines say about their caches (vLLM's and SGLang's KV events), decoded. The index that eats them is kv_event_index.h, the
// socket they come from picker/kv_event_source.h. Source: facts sheet "epp" 4.7 precise-prefix-cache-producer.
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace baton::route {

struct BlockStored {
  std::vector<uint64_t> hashes;            // the engine's own; bytes are taken by their last eight, big endian
  uint64_t parent = 0;
  bool has_parent = false;
  std::vector<uint32_t> tokens;            // block_tokens of them a hash
  int block_tokens = 16;
  std::string lora;                        // replaces the model name where given
  int lora_id = 0;                         // the engine's own number of it; 0 = none
  std::string tier = "gpu";
  std::vector<std::vector<std::string>> extra_keys;  // per block; empty = none
  int group = 0;
};
struct BlockRemoved {
  std::vector<uint64_t> hashes;
  std::string tier = "gpu";
  int group = 0;
};
struct AllBlocksCleared {};
using KvEvent = std::variant<BlockStored, BlockRemoved, AllBlocksCleared>;

struct KvEventBatch {
  double timestamp_s = 0;
  int rank = -1;  // data-parallel rank; -1 = not said
  std::vector<KvEvent> events;
};

}  // namespace baton::route
