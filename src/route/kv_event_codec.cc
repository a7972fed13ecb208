#include "route/kv_event_codec.h"

#include <bit>
#include <cstring>
#include <span>

namespace baton::route {
namespace {

// A pull reader of MessagePack. After an error everything it returns is empty and ok() is false.
class Unpacker {
 public:
  enum class Kind : uint8_t { kNil, kBool, kInt, kFloat, kText, kArray, kMap, kExt };
  struct Head {
    Kind kind = Kind::kNil;
    uint64_t n = 0;  // integer (two's complement), or number of items
    double real = 0;
    std::string_view text;
  };

  explicit Unpacker(std::string_view bytes) : bytes_(bytes) {}
  bool ok() const { return ok_; }
  size_t at() const { return at_; }
  void rewind(size_t at) { at_ = at; }
  void spoil() { ok_ = false; }

  Head next() {
    if (at_ >= bytes_.size()) return spoilt();
    const auto tag = static_cast<uint8_t>(bytes_[at_++]);
    if (tag < 0x80) return {.kind = Kind::kInt, .n = tag, .text = {}};
    if (tag >= 0xe0) return {.kind = Kind::kInt, .n = static_cast<uint64_t>(static_cast<int8_t>(tag)), .text = {}};
    if (tag < 0x90) return items(Kind::kMap, tag & 15);
    if (tag < 0xa0) return items(Kind::kArray, tag & 15);
    if (tag < 0xc0) return text(tag & 31);
    switch (tag) {
      case 0xc0: return {};
      case 0xc2:
      case 0xc3: return {.kind = Kind::kBool, .n = tag & 1u, .text = {}};
      case 0xc4:
      case 0xd9: return text(big(1));
      case 0xc5:
      case 0xda: return text(big(2));
      case 0xc6:
      case 0xdb: return text(big(4));
      case 0xc7: return ext(big(1));
      case 0xc8: return ext(big(2));
      case 0xc9: return ext(big(4));
      case 0xca: return real(std::bit_cast<float>(static_cast<uint32_t>(big(4))));
      case 0xcb: return real(std::bit_cast<double>(big(8)));
      case 0xcc: return integer(big(1));
      case 0xcd: return integer(big(2));
      case 0xce: return integer(big(4));
      case 0xcf: return integer(big(8));
      case 0xd0: return integer(static_cast<uint64_t>(static_cast<int8_t>(big(1))));
      case 0xd1: return integer(static_cast<uint64_t>(static_cast<int16_t>(big(2))));
      case 0xd2: return integer(static_cast<uint64_t>(static_cast<int32_t>(big(4))));
      case 0xd3: return integer(big(8));
      case 0xd4:
      case 0xd5:
      case 0xd6:
      case 0xd7:
      case 0xd8: return ext(1u << (tag - 0xd4));
      case 0xdc: return items(Kind::kArray, big(2));
      case 0xdd: return items(Kind::kArray, big(4));
      case 0xde: return items(Kind::kMap, big(2));
      case 0xdf: return items(Kind::kMap, big(4));
      default: return spoilt();
    }
  }
  // What is left of a value whose head was read.
  void skip_rest(const Head& head, int depth = 0) {
    if (head.kind != Kind::kArray && head.kind != Kind::kMap) return;
    if (depth > kKvDepthMax) return spoil();
    const uint64_t n = head.kind == Kind::kMap ? head.n * 2 : head.n;
    for (uint64_t i = 0; i < n && ok_; ++i) skip_rest(next(), depth + 1);
  }
  void skip() { skip_rest(next()); }

 private:
  Head spoilt() { return ok_ = false, Head{}; }
  uint64_t big(size_t n) {
    if (bytes_.size() - at_ < n) return ok_ = false, 0;
    uint64_t v = 0;
    for (size_t i = 0; i < n; ++i) v = v << 8 | static_cast<uint8_t>(bytes_[at_++]);
    return v;
  }
  static Head integer(uint64_t v) { return {.kind = Kind::kInt, .n = v, .text = {}}; }
  static Head real(double v) { return {.kind = Kind::kFloat, .real = v, .text = {}}; }
  Head items(Kind kind, uint64_t n) {
    if (n > bytes_.size() - at_) return spoilt();  // each takes a byte at least
    return {.kind = kind, .n = n, .text = {}};
  }
  Head text(uint64_t n) {
    if (!ok_ || n > bytes_.size() - at_) return spoilt();
    at_ += n;
    return {.kind = Kind::kText, .text = bytes_.substr(at_ - n, n)};
  }
  Head ext(uint64_t n) {
    Head head = text(n + 1);
    head.kind = Kind::kExt;
    return head;
  }

  std::string_view bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

using Head = Unpacker::Head;
using Kind = Unpacker::Kind;

uint64_t last_eight(std::string_view bytes) {
  uint64_t v = 0;
  for (const char c : bytes.substr(bytes.size() - std::min<size_t>(bytes.size(), 8))) v = v << 8 | static_cast<uint8_t>(c);
  return v;
}
uint64_t hash_of(const Head& head) { return head.kind == Kind::kText ? last_eight(head.text) : head.n; }
bool is_hash(const Head& head) { return head.kind == Kind::kText || head.kind == Kind::kInt; }
int small(const Head& head, int otherwise) {
  return head.kind == Kind::kInt && head.n <= INT32_MAX ? static_cast<int>(head.n) : otherwise;
}
std::string short_text(std::string_view text) { return std::string(text.substr(0, kKvTextBytesMax)); }

std::string tier_of(const Head& head) {
  if (head.kind != Kind::kText || head.text.empty()) return "gpu";
  std::string tier = short_text(head.text);
  for (char& c : tier) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return tier;
}

enum class Field : uint8_t { kTag, kHashes, kParent, kTokens, kBlockSize, kMedium, kLora, kLoraId, kExtra, kGroup, kOther };
constexpr Field kStoredFields[] = {Field::kTag,   Field::kHashes, Field::kParent, Field::kTokens, Field::kBlockSize,
                                   Field::kLoraId, Field::kMedium, Field::kLora,   Field::kExtra,  Field::kGroup};
constexpr Field kRemovedFields[] = {Field::kTag, Field::kHashes, Field::kMedium, Field::kGroup};

Field field_named(std::string_view name) {
  static constexpr std::pair<std::string_view, Field> kNames[] = {
      {"type", Field::kTag},        {"block_hashes", Field::kHashes}, {"parent_block_hash", Field::kParent}, {"token_ids", Field::kTokens},
      {"block_size", Field::kBlockSize}, {"medium", Field::kMedium},  {"lora_name", Field::kLora},           {"extra_keys", Field::kExtra},
      {"group_idx", Field::kGroup}, {"lora_id", Field::kLoraId},
  };
  for (const auto& [text, field] : kNames) {
    if (text == name) return field;
  }
  return Field::kOther;
}

void read_extra_keys(Unpacker& in, const Head& head, std::vector<std::vector<std::string>>& out) {
  if (head.kind != Kind::kArray) return in.skip_rest(head);
  for (uint64_t i = 0; i < head.n && in.ok(); ++i) {
    const Head block = in.next();
    std::vector<std::string>& keys = out.emplace_back();
    if (block.kind != Kind::kArray) {
      in.skip_rest(block);
      continue;
    }
    for (uint64_t k = 0; k < block.n && in.ok(); ++k) {
      const Head key = in.next();
      if (key.kind == Kind::kText) {
        keys.push_back(short_text(key.text));
      } else if (key.kind == Kind::kArray && key.n > 0) {  // (text, offset), as older engines write
        const Head first = in.next();
        if (first.kind == Kind::kText) keys.push_back(short_text(first.text));
        in.skip_rest(first, 1);
        for (uint64_t j = 1; j < key.n && in.ok(); ++j) in.skip();
      } else {
        in.skip_rest(key);
      }
    }
  }
}

// One field; a BlockRemoved is read as a BlockStored that has fewer.
void read_field(Unpacker& in, Field field, BlockStored& event) {
  const Head head = in.next();
  switch (field) {
    case Field::kHashes:
      if (head.kind != Kind::kArray) return in.skip_rest(head);
      event.hashes.reserve(head.n);
      for (uint64_t i = 0; i < head.n && in.ok(); ++i) {
        const Head hash = in.next();
        if (!is_hash(hash)) return in.spoil();
        event.hashes.push_back(hash_of(hash));
      }
      return;
    case Field::kParent:
      event.has_parent = is_hash(head);
      event.parent = event.has_parent ? hash_of(head) : 0;
      return in.skip_rest(head);
    case Field::kTokens:
      if (head.kind != Kind::kArray) return in.skip_rest(head);
      event.tokens.reserve(head.n);
      for (uint64_t i = 0; i < head.n && in.ok(); ++i) {
        const Head token = in.next();
        if (token.kind != Kind::kInt) return in.spoil();
        event.tokens.push_back(static_cast<uint32_t>(token.n));
      }
      return;
    case Field::kBlockSize: event.block_tokens = small(head, 0); return in.skip_rest(head);
    case Field::kMedium: event.tier = tier_of(head); return in.skip_rest(head);
    case Field::kLora:
      if (head.kind == Kind::kText) event.lora = short_text(head.text);
      return in.skip_rest(head);
    case Field::kLoraId: event.lora_id = small(head, 0); return in.skip_rest(head);
    case Field::kExtra: return read_extra_keys(in, head, event.extra_keys);
    case Field::kGroup: event.group = small(head, 0); return in.skip_rest(head);
    default: return in.skip_rest(head);
  }
}

void keep_event(std::string_view tag, BlockStored&& event, KvEventBatch& out) {
  if (tag == "BlockStored") {
    out.events.emplace_back(std::move(event));
  } else if (tag == "BlockRemoved") {
    out.events.emplace_back(BlockRemoved{std::move(event.hashes), std::move(event.tier), event.group});
  } else if (tag == "AllBlocksCleared") {
    out.events.emplace_back(AllBlocksCleared{});
  }
}

void read_event(Unpacker& in, KvEventBatch& out) {
  const Head head = in.next();
  BlockStored event;
  std::string_view tag;
  if (head.kind == Kind::kArray && head.n > 0) {
    const Head first = in.next();
    if (first.kind != Kind::kText) return in.spoil();
    tag = first.text;
    const std::span<const Field> fields = tag == "BlockRemoved" ? std::span<const Field>(kRemovedFields) : kStoredFields;
    const bool known = tag == "BlockRemoved" || tag == "BlockStored";
    for (uint64_t i = 1; i < head.n && in.ok(); ++i) read_field(in, known && i < fields.size() ? fields[i] : Field::kOther, event);
  } else if (head.kind == Kind::kMap) {
    for (uint64_t i = 0; i < head.n && in.ok(); ++i) {
      const Head name = in.next();
      const Field field = field_named(name.kind == Kind::kText ? name.text : "");
      in.skip_rest(name);
      if (field != Field::kTag) {
        read_field(in, field, event);
        continue;
      }
      const Head value = in.next();
      if (value.kind == Kind::kText) tag = value.text;
      in.skip_rest(value);
    }
  } else {
    return in.spoil();
  }
  if (in.ok()) keep_event(tag, std::move(event), out);
}

// ---- writing
void put_big(std::string& out, uint64_t v, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(v >> (8 * i));
}
void put_int(std::string& out, uint64_t v) {
  if (v < 0x80) return put_big(out, v, 1);
  const int bytes = v <= 0xff ? 1 : v <= 0xffff ? 2 : v <= 0xffffffff ? 4 : 8;
  out += static_cast<char>(0xcc + std::countr_zero(static_cast<unsigned>(bytes)));
  put_big(out, v, bytes);
}
void put_count(std::string& out, size_t n, uint8_t small_tag, uint8_t tag16) {
  if (n < 16) return put_big(out, small_tag | n, 1);
  put_big(out, n <= 0xffff ? tag16 : tag16 + 1u, 1);
  put_big(out, n, n <= 0xffff ? 2 : 4);
}
void put_array(std::string& out, size_t n) { put_count(out, n, 0x90, 0xdc); }
void put_text(std::string& out, std::string_view text) {
  put_big(out, 0xda, 1);
  put_big(out, text.size(), 2);
  out += text;
}
void put_hashes(std::string& out, const std::vector<uint64_t>& hashes) {
  put_array(out, hashes.size());
  for (const uint64_t hash : hashes) put_int(out, hash);
}

struct EventWriter {
  std::string& out;
  KvForm form;
  void begin(std::string_view tag, size_t fields) {
    if (form == KvForm::kArray) {
      put_array(out, fields + 1);
    } else {
      put_count(out, fields + 1, 0x80, 0xde);
      put_text(out, "type");
    }
    put_text(out, tag);
  }
  void name(std::string_view text) {
    if (form == KvForm::kMap) put_text(out, text);
  }
  void operator()(const BlockStored& e) {
    begin("BlockStored", 9);
    name("block_hashes"), put_hashes(out, e.hashes);
    name("parent_block_hash");
    if (e.has_parent)
      put_int(out, e.parent);
    else
      out += '\xc0';
    name("token_ids"), put_array(out, e.tokens.size());
    for (const uint32_t token : e.tokens) put_int(out, token);
    name("block_size"), put_int(out, static_cast<uint64_t>(e.block_tokens));
    name("lora_id");
    if (e.lora_id > 0)
      put_int(out, static_cast<uint64_t>(e.lora_id));
    else
      out += '\xc0';
    name("medium"), put_text(out, e.tier);
    name("lora_name");
    if (e.lora.empty())
      out += '\xc0';
    else
      put_text(out, e.lora);
    name("extra_keys"), put_array(out, e.extra_keys.size());
    for (const auto& keys : e.extra_keys) {
      put_array(out, keys.size());
      for (const std::string& key : keys) put_text(out, key);
    }
    name("group_idx"), put_int(out, static_cast<uint64_t>(e.group));
  }
  void operator()(const BlockRemoved& e) {
    begin("BlockRemoved", 3);
    name("block_hashes"), put_hashes(out, e.hashes);
    name("medium"), put_text(out, e.tier);
    name("group_idx"), put_int(out, static_cast<uint64_t>(e.group));
  }
  void operator()(const AllBlocksCleared&) { begin("AllBlocksCleared", 0); }
};

}  // namespace

Result<KvEventBatch> decode_kv_events(std::string_view payload) {
  if (payload.size() > kKvPayloadBytesMax) return fail(Code::kResourceExhausted, "KV events of ", payload.size(), " bytes");
  Unpacker in(payload);
  KvEventBatch out;
  const Head batch = in.next();
  if (batch.kind != Kind::kArray || batch.n < 2) return fail(Code::kInvalidArgument, "KV events are no array of time and events");
  const Head time = in.next();
  if (time.kind == Kind::kFloat) out.timestamp_s = time.real;
  if (time.kind == Kind::kInt) out.timestamp_s = static_cast<double>(time.n);
  in.skip_rest(time);
  const Head events = in.next();
  if (events.kind != Kind::kArray) return fail(Code::kInvalidArgument, "KV events are no array of time and events");
  for (uint64_t i = 0; i < events.n && in.ok(); ++i) read_event(in, out);
  if (batch.n > 2 && in.ok()) {
    const Head rank = in.next();
    out.rank = small(rank, -1);
    in.skip_rest(rank);
  }
  if (!in.ok()) return fail(Code::kInvalidArgument, "KV events broken before byte ", in.at());
  return out;
}

std::string encode_kv_events(const KvEventBatch& batch, KvForm form) {
  std::string out;
  put_array(out, batch.rank < 0 ? 2 : 3);
  out += '\xcb';
  put_big(out, std::bit_cast<uint64_t>(batch.timestamp_s), 8);
  put_array(out, batch.events.size());
  for (const KvEvent& event : batch.events) std::visit(EventWriter{out, form}, event);
  if (batch.rank >= 0) put_int(out, static_cast<uint64_t>(batch.rank));
  return out;
}

KvTopic parse_kv_topic(std::string_view topic) {
  if (!topic.starts_with("kv@")) return {topic, {}};
  const std::string_view rest = topic.substr(3);
  const size_t at = rest.find('@');
  if (at == std::string_view::npos) return {topic, {}};
  return {rest.substr(0, at), rest.substr(at + 1)};
}

}  // namespace baton::route
