#pragma once
// BodyReader: reads a request body while it arrives, in any split, once: what the picker must know of it, and the content ids of
// the prompt's blocks. No DOM, no copy of the body; memory is bounded by the limits below, not by the body.
//   BodyReader reader({.shape = shape_of(path)});   feed(bytes)* -> finish() -> facts(), chain(...), edited(...)
// Guarantees: any split gives the same result; JSON that base/json.h refuses is refused (kInvalidArgument with the byte offset:
// 400), too large a body is kResourceExhausted (413). After an error every further call returns it.
// The prompt counts in the order engines see it, whatever the order of the members: tools, system text, messages. Each of the
// three is cut into blocks of its own; the chain over them is made at the end, so it may depend on what comes last in the body.
// Threads: the Flight's. Source: facts sheet "epp" 4.7, 4.10.
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "picker/body_limits.h"

namespace baton::picker {

enum class Shape : uint8_t {
  kRefused,      // no configured parser takes the path: 400
  kPassthrough,  // nothing is read
  kChat, kCompletions, kEmbeddings, kResponses, kConversations, kImages,  // openai-parser
  kAnthropic, kAnthropicCount,                                            // anthropic-parser
  kVllmGenerate, kSglangGenerate,                                         // vllmhttp-parser, sglanghttp-parser
};
// By the longest path suffix any of the parsers names; a parser without paths (passthrough) takes the rest. Path without query.
Shape shape_of(std::string_view path, std::span<const std::string> parsers);

struct BodyOptions {
  Shape shape = Shape::kPassthrough;
  bool blocks = true;       // content ids for chain(); off: only lengths are counted
  bool token_ids = false;   // keep the ids of a prompt given as token ids (precise index)
  size_t block_bytes = 64;  // 4 bytes a token
  size_t blocks_max = 2048;
  size_t bytes_max = 128u << 20;
  bool operator==(const BodyOptions&) const = default;
};

struct ByteRange {
  size_t begin = 0, end = 0;  // [begin, end) of the body
  bool operator==(const ByteRange&) const = default;
};

enum class AssetKind : uint8_t { kImage, kAudio, kVideo, kFile };
struct Asset {
  uint64_t hash = 0;  // of its URL or data
  AssetKind kind = AssetKind::kImage;
  size_t bytes = 0;
  bool operator==(const Asset&) const = default;
};

enum class PromptKind : uint8_t { kNone, kText, kTexts, kIds, kIdLists, kMessages };

struct BodyFacts {
  bool has_model = false;
  std::string model;                      // unescaped; a later duplicate wins
  std::vector<ByteRange> model_values;    // every top-level "model" value, quotes included
  bool stream = false, include_usage = false;
  std::optional<int64_t> max_tokens;      // max_completion_tokens, max_output_tokens, sampling_params.max_(new_)tokens alike
  int64_t n = 1;
  std::optional<int64_t> priority;
  std::string user;                       // cut at kUserBytesMax
  std::string lora;                       // sglang's lora_path
  uint64_t salt = 0;                      // of cache_salt; 0 = none
  std::string salt_text;                  // itself, with BodyOptions::token_ids; cut at kModelNameBytesMax
  ByteRange features;                     // of the body as it came: what stands among token ids for media
  PromptKind prompt = PromptKind::kNone;
  size_t messages = 0;
  int64_t text_bytes = 0, ids = 0;        // tools and system text included
  int64_t asset_tokens = 0;               // estimate
  std::vector<Asset> assets;              // the first kAssetsMax
  bool multimodal = false;
  std::vector<uint32_t> token_ids;        // BodyOptions::token_ids
  std::vector<ByteRange> cuts;            // what edited() leaves out: kv_transfer_params with its key and comma
  int64_t prompt_tokens() const;          // estimate: 4 bytes a token; at least 1
};

class BodyReader {
 public:
  explicit BodyReader(const BodyOptions& options);
  ~BodyReader();
  BodyReader(BodyReader&&) noexcept;
  BodyReader& operator=(BodyReader&&) noexcept;
  Result<> feed(std::string_view bytes);
  Result<> finish();  // the body is complete
  const BodyFacts& facts() const;
  void keep_facts();  // and nothing else: no other call is good for anything afterwards
  const BodyOptions& options() const;
  size_t bytes() const;  // fed so far

  // One hash a full block, each covering everything before it, model, salt, adapter and tools included; at most blocks_max.
  // model: what is asked of the engine, after rewrites. seed: per pool, and the same on replicas that share an index.
  std::vector<uint64_t> chain(uint64_t seed, std::string_view model) const;
  size_t blocks() const;  // = chain().size()

  // Whether edited(body, model) differs from the body.
  bool wants_edit(std::optional<std::string_view> model) const;
  // The body, without kv_transfer_params, and asking for `model` if that is given; every other byte as it was.
  std::string edited(std::string_view body, std::optional<std::string_view> model) const;

 private:
  struct Reading;
  std::unique_ptr<Reading> reading_;
  BodyFacts kept_;
};

}  // namespace baton::picker
