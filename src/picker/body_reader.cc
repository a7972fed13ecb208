#include "picker/body_reader.h"

#include <algorithm>
#include <utility>

#include "picker/body_blocks.h"
#include "picker/json_scan.h"

namespace baton::picker {
namespace {

enum Section : uint8_t { kTools, kSystem, kConversation, kSections };

// How the members of a container are taken.
enum class Place : uint8_t { kNothing, kRoot, kPrompt, kMessages, kMessage, kContent, kPart, kSampling, kStreamOptions };

// What a value is.
enum class Member : uint8_t {
  kNone, kModel, kStream, kStreamOptions, kIncludeUsage, kMaxTokens, kN, kPriority, kUser, kLora, kSalt, kKvParams, kSampling,
  kTools, kPrompt, kMessages, kMessage, kSystem, kContent, kPart, kText, kRaw, kFeatures, kImage, kAudio, kVideo, kFile,
};

struct Name {
  std::string_view key;
  Member member;
  uint32_t shapes = ~0u;
};
constexpr uint32_t in(Shape shape) { return 1u << static_cast<unsigned>(shape); }
constexpr uint32_t kTooled = in(Shape::kChat) | in(Shape::kResponses) | in(Shape::kAnthropic) | in(Shape::kAnthropicCount);
constexpr uint32_t kMessaged = in(Shape::kChat) | in(Shape::kEmbeddings) | in(Shape::kAnthropic) | in(Shape::kAnthropicCount);

constexpr Name kRootNames[] = {
    {"model", Member::kModel},
    {"stream", Member::kStream},
    {"stream_options", Member::kStreamOptions},
    {"max_tokens", Member::kMaxTokens},
    {"max_completion_tokens", Member::kMaxTokens},
    {"max_output_tokens", Member::kMaxTokens},
    {"n", Member::kN},
    {"priority", Member::kPriority},
    {"user", Member::kUser},
    {"lora_path", Member::kLora},
    {"cache_salt", Member::kSalt},
    {"kv_transfer_params", Member::kKvParams},
    {"sampling_params", Member::kSampling},
    {"tools", Member::kTools, kTooled},
    {"functions", Member::kTools, in(Shape::kChat)},
    {"documents", Member::kTools, in(Shape::kChat)},
    {"chat_template", Member::kTools, in(Shape::kChat)},
    {"chat_template_kwargs", Member::kTools, in(Shape::kChat)},
    {"messages", Member::kMessages, kMessaged},
    {"items", Member::kMessages, in(Shape::kConversations)},
    {"system", Member::kSystem, in(Shape::kAnthropic) | in(Shape::kAnthropicCount)},
    {"instructions", Member::kSystem, in(Shape::kResponses)},
    {"input", Member::kMessages, in(Shape::kResponses)},
    {"input", Member::kPrompt, in(Shape::kEmbeddings)},
    {"prompt", Member::kPrompt, in(Shape::kCompletions) | in(Shape::kImages)},
    {"token_ids", Member::kPrompt, in(Shape::kVllmGenerate)},
    {"features", Member::kFeatures, in(Shape::kVllmGenerate)},
    {"text", Member::kPrompt, in(Shape::kSglangGenerate)},
    {"input_ids", Member::kPrompt, in(Shape::kSglangGenerate)},
    {"image_data", Member::kImage, in(Shape::kSglangGenerate)},
    {"audio_data", Member::kAudio, in(Shape::kSglangGenerate)},
    {"video_data", Member::kVideo, in(Shape::kSglangGenerate)},
};
constexpr Name kMessageNames[] = {
    {"role", Member::kText},       {"content", Member::kContent}, {"tool_calls", Member::kRaw},        {"output", Member::kContent},
    {"arguments", Member::kText},  {"name", Member::kText},       {"reasoning_content", Member::kText},
};
constexpr Name kPartNames[] = {
    {"text", Member::kText},       {"content", Member::kContent}, {"thinking", Member::kText},     {"refusal", Member::kText},
    {"input", Member::kRaw},       {"image_url", Member::kImage}, {"image", Member::kImage},       {"source", Member::kImage},
    {"audio_url", Member::kAudio}, {"audio", Member::kAudio},     {"input_audio", Member::kAudio}, {"video_url", Member::kVideo},
    {"video", Member::kVideo},     {"file", Member::kFile},       {"file_data", Member::kFile},
};
constexpr Name kSamplingNames[] = {{"max_tokens", Member::kMaxTokens}, {"max_new_tokens", Member::kMaxTokens}, {"n", Member::kN}};
constexpr Name kStreamOptionNames[] = {{"include_usage", Member::kIncludeUsage}};

Member find(std::span<const Name> names, std::string_view key, Shape shape) {
  for (const Name& name : names) {
    if (name.key == key && (name.shapes & in(shape)) != 0) return name.member;
  }
  return Member::kNone;
}

Member member_named(Place place, std::string_view key, Shape shape) {
  switch (place) {
    case Place::kRoot: return find(kRootNames, key, shape);
    case Place::kMessage: return find(kMessageNames, key, shape);
    case Place::kPart: return find(kPartNames, key, shape);
    case Place::kSampling: return find(kSamplingNames, key, shape);
    case Place::kStreamOptions: return find(kStreamOptionNames, key, shape);
    default: return Member::kNone;
  }
}

Member item_of(Place place) {
  switch (place) {
    case Place::kPrompt: return Member::kPrompt;
    case Place::kMessages: return Member::kMessage;
    case Place::kContent: return Member::kPart;
    default: return Member::kNone;
  }
}

Place place_within(Member member, bool object) {
  switch (member) {
    case Member::kPrompt: return object ? Place::kNothing : Place::kPrompt;
    case Member::kMessages: return object ? Place::kNothing : Place::kMessages;
    case Member::kMessage: return object ? Place::kMessage : Place::kNothing;
    case Member::kSystem:
    case Member::kContent: return object ? Place::kPart : Place::kContent;
    case Member::kPart: return object ? Place::kPart : Place::kNothing;
    case Member::kSampling: return object ? Place::kSampling : Place::kNothing;
    case Member::kStreamOptions: return object ? Place::kStreamOptions : Place::kNothing;
    default: return Place::kNothing;
  }
}

bool is_region(Member member) {
  return member == Member::kTools || member == Member::kRaw || (member >= Member::kImage && member <= Member::kFile);
}
bool is_asset(Member member) { return member >= Member::kImage; }

std::optional<int64_t> integer(std::string_view text) {
  Json number;
  number.kind = Json::Kind::kNumber;
  number.text = text;
  return number.as_int();
}

std::string_view kind_text(Json::Kind kind) {
  Json value;
  value.kind = kind;
  return value.kind_name();
}

}  // namespace

struct BodyReader::Reading {
  explicit Reading(const BodyOptions& given) : options(given), scan(*this) {
    for (BodyBlocks& b : blocks) b.start(options.block_bytes, options.blocks_max);
  }

  // ---- called by the scanner
  void key(std::string_view name) {
    const Place place = places[static_cast<size_t>(scan.depth() - 1)];
    if (region != Member::kNone || place == Place::kNothing) return;
    member = member_named(place, name, options.shape);
    if (place == Place::kRoot) root_key();
  }

  void begin(Json::Kind kind, const char* p) {
    const int depth = scan.depth();
    const bool container = kind == Json::Kind::kObject || kind == Json::Kind::kArray;
    if (region == Member::kNone) classify(kind, p);
    if (container) {
      if (depth == 0) root_begin = scan.offset_of(p);
      const bool root = depth == 0 && kind == Json::Kind::kObject;
      const bool quiet = region != Member::kNone;
      places[static_cast<size_t>(depth)] =
          root ? Place::kRoot : quiet ? Place::kNothing : place_within(member, kind == Json::Kind::kObject);
      member = Member::kNone;
    }
  }

  void classify(Json::Kind kind, const char* p) {
    const int depth = scan.depth();
    if (depth == 0) {
      if (kind != Json::Kind::kObject) fault = Error{Code::kInvalidArgument, cat("request body must be a JSON object, not ", kind_text(kind))};
      return;
    }
    const Place place = places[static_cast<size_t>(depth - 1)];
    if (place == Place::kPrompt || place == Place::kMessages || place == Place::kContent) member = item_of(place);
    if (place == Place::kRoot) root_value(kind, p);
    if (member == Member::kMessage) ++facts.messages;
    if (member == Member::kPrompt) prompt_value(kind, place);
    if (member == Member::kFeatures && kind != Json::Kind::kNull) facts.multimodal = true;
    if (is_region(member) && kind != Json::Kind::kNull) {
      region = member;
      region_depth = depth;
      region_from = p;
      asset.reset();
    }
  }

  void text(std::string_view piece) {
    if (region != Member::kNone) {
      if (is_asset(region)) asset.feed(piece);
      return;
    }
    switch (member) {
      case Member::kModel: return capture(facts.model, piece, kModelNameBytesMax + 1);
      case Member::kUser: return capture(facts.user, piece, kUserBytesMax);
      case Member::kLora: return capture(facts.lora, piece, kModelNameBytesMax);
      case Member::kSalt: return (options.token_ids ? capture(facts.salt_text, piece, kModelNameBytesMax) : void()), asset.feed(piece);
      case Member::kText:
      case Member::kContent:
      case Member::kSystem:
      case Member::kPart:
      case Member::kPrompt: return prompt_text(piece);
      case Member::kMessages:
        if (options.shape == Shape::kResponses) prompt_text(piece);  // input may be plain text
        return;
      default: return;
    }
  }

  void number(std::string_view source) {
    if (region != Member::kNone) return;
    const auto v = integer(source);
    switch (member) {
      case Member::kMaxTokens: facts.max_tokens = v; break;
      case Member::kN: facts.n = v.value_or(1); break;
      case Member::kPriority: facts.priority = v; break;
      case Member::kPrompt:
        if (v && places[static_cast<size_t>(scan.depth() - 1)] == Place::kPrompt) prompt_id(*v);
        break;
      default: break;
    }
  }

  void boolean(bool value) {
    if (region != Member::kNone) return;
    if (member == Member::kStream) facts.stream = value;
    if (member == Member::kIncludeUsage) facts.include_usage = value;
  }

  bool wants_ids() const {
    return scan.depth() > 0 && region == Member::kNone && places[static_cast<size_t>(scan.depth() - 1)] == Place::kPrompt;
  }
  void id(int64_t v) {
    prompt_value(Json::Kind::kNumber, Place::kPrompt);
    prompt_id(v);
  }

  void end(const char* p) {
    const int depth = scan.depth();
    if (region != Member::kNone && region_depth == depth) end_region(p);
    if (depth == 1 && places[0] == Place::kRoot) root_value_end(scan.offset_of(p));
    if (depth == 0 && places[0] == Place::kRoot) root_end();
    member = Member::kNone;
  }

  // ---- members of the root
  void root_key() {
    root_member = member;
    if (cutting) facts.cuts.push_back({cut_from, scan.key_offset()});
    cutting = member == Member::kKvParams;
    if (cutting) cut_from = scan.key_offset();
  }
  void root_value(Json::Kind kind, const char* p) {
    value_begin = scan.offset_of(p);
    section = member == Member::kTools ? kTools : member == Member::kSystem ? kSystem : kConversation;
    switch (member) {
      case Member::kModel:
        if (kind != Json::Kind::kString && kind != Json::Kind::kNull)
          fault = Error{Code::kInvalidArgument, cat("model must be a string, not ", kind_text(kind))};
        facts.model.clear();
        facts.has_model = kind == Json::Kind::kString;
        break;
      case Member::kUser: facts.user.clear(); break;
      case Member::kLora: facts.lora.clear(); break;
      case Member::kSalt: asset.reset(), facts.salt_text.clear(); break;
      case Member::kStream: facts.stream = false; break;
      case Member::kStreamOptions: facts.include_usage = false; break;
      case Member::kMaxTokens: facts.max_tokens.reset(); break;
      case Member::kPriority: facts.priority.reset(); break;
      case Member::kN: facts.n = 1; break;
      case Member::kMessages:
        facts.prompt = kind == Json::Kind::kString ? PromptKind::kText : PromptKind::kMessages;
        break;
      default: break;
    }
  }
  void root_value_end(size_t at) {
    if (root_member == Member::kModel) {
      facts.model_values.push_back({value_begin, at});
      if (facts.model.size() > kModelNameBytesMax) fault = Error{Code::kInvalidArgument, "model name is too long"};
    }
    if (root_member == Member::kSalt) facts.salt = asset.bytes() > 0 ? asset.value() | 1 : 0;
    if (root_member == Member::kFeatures) facts.features = {value_begin, at};
    if (cutting)
      cut_end = at;
    else
      kept_end = at;
    if (facts.model_values.size() > kRangesMax || facts.cuts.size() > kRangesMax)
      fault = Error{Code::kInvalidArgument, "too many members of one name"};
    root_member = Member::kNone;
  }
  void root_end() {
    if (!cutting) return;
    // Nothing follows, so the comma before goes too, and with it the cut members that lie between.
    const size_t from = kept_end > 0 ? kept_end : root_begin + 1;
    std::erase_if(facts.cuts, [&](const ByteRange& cut) { return cut.begin >= from; });
    facts.cuts.push_back({from, cut_end});
  }

  // ---- the prompt
  void prompt_value(Json::Kind kind, Place place) {
    if (facts.prompt == PromptKind::kIdLists || facts.prompt == PromptKind::kTexts || facts.prompt == PromptKind::kIds) return;
    if (place != Place::kPrompt) {
      facts.prompt = kind == Json::Kind::kString ? PromptKind::kText : PromptKind::kNone;
    } else if (kind == Json::Kind::kString) {
      facts.prompt = PromptKind::kTexts;
    } else if (kind == Json::Kind::kNumber) {
      facts.prompt = PromptKind::kIds;
    } else if (kind == Json::Kind::kArray) {
      facts.prompt = PromptKind::kIdLists;
    }
  }
  void prompt_text(std::string_view piece) {
    facts.text_bytes += static_cast<int64_t>(piece.size());
    if (options.blocks) blocks[section].feed(piece);
  }
  void prompt_id(int64_t v) {
    const auto small = static_cast<uint32_t>(v);
    ++facts.ids;
    if (options.blocks) {
      char raw[sizeof small];
      std::memcpy(raw, &small, sizeof raw);
      blocks[section].feed({raw, sizeof raw});
    }
    if (options.token_ids && facts.token_ids.size() < kTokenIdsMax) facts.token_ids.push_back(small);
  }

  void flush_region(const char* end) {
    if (region_from != nullptr && !is_asset(region)) prompt_text({region_from, static_cast<size_t>(end - region_from)});
    region_from = nullptr;
  }
  void end_region(const char* p) {
    flush_region(p);
    if (is_asset(region) && asset.bytes() > 0) add_asset();
    region = Member::kNone;
  }
  // An asset stands in the prompt as its token estimate, each token the low half of its hash.
  void add_asset() {
    const AssetKind kind = region == Member::kImage   ? AssetKind::kImage
                           : region == Member::kAudio ? AssetKind::kAudio
                           : region == Member::kVideo ? AssetKind::kVideo
                                                      : AssetKind::kFile;
    const int tokens = kind == AssetKind::kVideo ? kVideoTokens : kind == AssetKind::kAudio ? kAudioTokens : kImageTokens;
    facts.multimodal = true;
    facts.asset_tokens += tokens;
    const uint64_t hash = asset.value();
    const bool kept = facts.assets.size() < kAssetsMax;
    if (kept) facts.assets.push_back({hash, kind, asset.bytes()});
    if (!options.blocks) return;
    std::array<uint32_t, 64> run;
    run.fill(static_cast<uint32_t>(hash));
    for (size_t left = kept ? static_cast<size_t>(tokens) * 4 : 4; left > 0;) {
      const size_t n = std::min(left, sizeof run);
      blocks[section].feed({reinterpret_cast<const char*>(run.data()), n});
      left -= n;
    }
  }

  static void capture(std::string& out, std::string_view piece, size_t max) {
    if (out.size() < max) out.append(piece.substr(0, max - out.size()));
  }

  Result<> feed(std::string_view bytes) {
    if (fault) return std::unexpected(*fault);
    if (bytes.size() > options.bytes_max - fed) {
      fault = Error{Code::kResourceExhausted, cat("request body is over the limit of ", options.bytes_max, " bytes")};
      return std::unexpected(*fault);
    }
    fed += bytes.size();
    if (options.shape == Shape::kPassthrough || options.shape == Shape::kRefused || bytes.empty()) return {};
    if (region != Member::kNone) region_from = bytes.data();
    if (auto done = scan.feed(bytes); !done && !fault) fault = std::move(done).error();
    if (fault) return std::unexpected(*fault);
    if (region != Member::kNone) flush_region(bytes.data() + bytes.size());
    return {};
  }

  const BodyOptions options;
  BodyFacts facts;
  JsonScan<Reading> scan;
  std::array<BodyBlocks, kSections> blocks;
  std::optional<Error> fault;
  size_t fed = 0;
  std::array<Place, kBodyDepthMax + 1> places{};
  Member member = Member::kNone, root_member = Member::kNone;
  Section section = kConversation;
  Member region = Member::kNone;  // tools, tool calls or an asset: everything until the value at region_depth ends
  int region_depth = 0;
  const char* region_from = nullptr;
  AssetHash asset;
  size_t root_begin = 0, value_begin = 0, kept_end = 0, cut_from = 0, cut_end = 0;
  bool cutting = false;
};

int64_t BodyFacts::prompt_tokens() const { return std::max<int64_t>(1, text_bytes / 4 + ids + asset_tokens); }

BodyReader::BodyReader(const BodyOptions& options) : reading_(std::make_unique<Reading>(options)) {}
BodyReader::~BodyReader() = default;
BodyReader::BodyReader(BodyReader&&) noexcept = default;
BodyReader& BodyReader::operator=(BodyReader&&) noexcept = default;

Result<> BodyReader::feed(std::string_view bytes) { return reading_->feed(bytes); }

Result<> BodyReader::finish() {
  Reading& r = *reading_;
  if (r.fault) return std::unexpected(*r.fault);
  if (r.options.shape == Shape::kPassthrough || r.options.shape == Shape::kRefused) return {};
  if (auto done = r.scan.finish(); !done) {
    r.fault = std::move(done).error();
    return std::unexpected(*r.fault);
  }
  return {};
}

const BodyFacts& BodyReader::facts() const { return reading_ ? reading_->facts : kept_; }
void BodyReader::keep_facts() { kept_ = std::move(reading_->facts), reading_.reset(); }
const BodyOptions& BodyReader::options() const { return reading_->options; }
size_t BodyReader::bytes() const { return reading_->fed; }

std::vector<uint64_t> BodyReader::chain(uint64_t seed, std::string_view model) const {
  const Reading& r = *reading_;
  std::vector<uint64_t> chain;
  if (!r.options.blocks) return chain;
  chain.reserve(blocks());
  uint64_t parent = mix_chain(block_id(model.data(), model.size()), seed);
  parent = mix_chain(r.facts.salt, parent);
  parent = mix_chain(block_id(r.facts.lora.data(), r.facts.lora.size()), parent);
  for (size_t s = 0; s < kSections; ++s) parent = r.blocks[s].extend_chain(chain, parent, s + 1 < kSections);
  return chain;
}

size_t BodyReader::blocks() const {
  size_t n = 0;
  for (const BodyBlocks& section : reading_->blocks) n += section.ids().size();
  return std::min(n, reading_->options.blocks_max);
}

bool BodyReader::wants_edit(std::optional<std::string_view> model) const {
  const BodyFacts& f = facts();
  return !f.cuts.empty() || (model && (!f.has_model || *model != f.model || f.model_values.size() > 1));
}

std::string BodyReader::edited(std::string_view body, std::optional<std::string_view> model) const {
  const Reading& r = *reading_;
  const std::string quoted = model ? json_string(*model) : std::string();
  std::string out;
  out.reserve(body.size() + quoted.size() + 16);
  size_t from = 0;
  auto cut = r.facts.cuts.begin();
  auto value = r.facts.model_values.begin();
  const auto values_end = model ? r.facts.model_values.end() : value;
  if (model && r.facts.model_values.empty()) {  // an object without the member
    from = r.root_begin + 1;
    out.append(body, 0, from);
    out += cat("\"model\":", quoted, r.kept_end > 0 ? "," : "");
  }
  while (cut != r.facts.cuts.end() || value != values_end) {
    const bool cuts = value == values_end || (cut != r.facts.cuts.end() && cut->begin < value->begin);
    const ByteRange& range = cuts ? *cut++ : *value++;
    out.append(body, from, range.begin - from);
    if (!cuts) out += quoted;
    from = range.end;
  }
  out.append(body, from);
  return out;
}

Shape shape_of(std::string_view path, std::span<const std::string> parsers) {
  struct Row {
    std::string_view parser, suffix;
    Shape shape;
  };
  static constexpr Row kRows[] = {
      {"openai-parser", "chat/completions", Shape::kChat},
      {"openai-parser", "chat/completions/render", Shape::kChat},
      {"openai-parser", "completions", Shape::kCompletions},
      {"openai-parser", "completions/render", Shape::kCompletions},
      {"openai-parser", "embeddings", Shape::kEmbeddings},
      {"openai-parser", "responses", Shape::kResponses},
      {"openai-parser", "conversations", Shape::kConversations},
      {"openai-parser", "images/generations", Shape::kImages},
      {"anthropic-parser", "messages", Shape::kAnthropic},
      {"anthropic-parser", "messages/count_tokens", Shape::kAnthropicCount},
      {"vllmhttp-parser", "inference/v1/generate", Shape::kVllmGenerate},
      {"sglanghttp-parser", "generate", Shape::kSglangGenerate},
  };
  Shape best = Shape::kRefused;
  size_t longest = 0;
  for (const std::string& parser : parsers) {
    if (parser == "passthrough-parser" && best == Shape::kRefused) best = Shape::kPassthrough;
    for (const Row& row : kRows) {
      if (row.parser != parser || row.suffix.size() <= longest || !path.ends_with(row.suffix)) continue;
      if (path.size() > row.suffix.size() && path[path.size() - row.suffix.size() - 1] != '/') continue;
      best = row.shape;
      longest = row.suffix.size();
    }
  }
  return best;
}

}  // namespace baton::picker
