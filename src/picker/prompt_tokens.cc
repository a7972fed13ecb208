#include "picker/prompt_tokens.h"

#include <algorithm>

#include "picker/json_scan.h"

namespace baton::picker {
namespace {

constexpr size_t kMediaMax = kAssetsMax;

// Ids by the scanner's fast way; features, which are small, as a tree.
class AnswerScan {
 public:
  void key(std::string_view name) {
    const int depth = scan_.depth() - root_depth_;
    if (depth != 1) return;
    wanted_ = name == "token_ids" || name == "tokens";
    features_ = name == "features";
  }
  void begin(Json::Kind kind, const char* p) {
    const int depth = scan_.depth();
    if (depth == 0 && kind == Json::Kind::kArray) root_depth_ = 1;  // of results: the first counts
    if (depth == root_depth_) done_ = results_++ > 0;
    if (depth != root_depth_ + 1) return;
    in_ids_ = wanted_ && kind == Json::Kind::kArray && !done_;
    if (in_ids_) found = true;
    if (features_ && !done_) features_from_ = scan_.offset_of(p);
  }
  void end(const char* p) {
    if (scan_.depth() != root_depth_ + 1) return;
    if (features_ && !done_) features = {features_from_, scan_.offset_of(p)};
    in_ids_ = wanted_ = features_ = false;
  }
  void text(std::string_view) {}
  void boolean(bool) {}
  void number(std::string_view source) {
    if (!wants_ids()) return;
    Json number;
    number.kind = Json::Kind::kNumber;
    number.text = source;
    if (const auto v = number.as_int()) id(*v);
  }
  bool wants_ids() const { return in_ids_ && scan_.depth() == root_depth_ + 2; }
  void id(int64_t v) {
    ++out.total;
    if (out.ids.size() < kTokenIdsMax) out.ids.push_back(static_cast<uint32_t>(v));
  }
  Result<> run(std::string_view body) {
    BATON_OK(scan_.feed(body));
    return scan_.finish();
  }

  PromptTokens out;
  bool found = false;
  std::pair<size_t, size_t> features{0, 0};

 private:
  JsonScan<AnswerScan> scan_{*this};
  int root_depth_ = 0, results_ = 0;
  size_t features_from_ = 0;
  bool wanted_ = false, features_ = false, in_ids_ = false, done_ = false;
};

}  // namespace

std::vector<route::MediaSpan> read_media_features(std::string_view text) {
  std::vector<route::MediaSpan> out;
  const auto features = parse_json(text, {.bytes_max = 16u << 20, .nodes_max = 1 << 20, .depth_max = 16});
  const Json* hashes = features ? features->find("mm_hashes") : nullptr;
  const Json* places = features ? features->find("mm_placeholders") : nullptr;
  if (hashes == nullptr || places == nullptr || !hashes->is_object()) return out;
  for (size_t m = 0; m < hashes->keys.size(); ++m) {
    const Json* at = places->find(hashes->keys[m]);
    const Json& of = hashes->items[m];
    if (at == nullptr || !at->is_array() || !of.is_array()) continue;
    for (size_t i = 0; i < std::min(of.items.size(), at->items.size()) && out.size() < kMediaMax; ++i) {
      const Json *offset = at->items[i].find("offset"), *length = at->items[i].find("length");
      const auto from = offset != nullptr ? offset->as_int() : std::nullopt,
                 n = length != nullptr ? length->as_int() : std::nullopt;
      if (!of.items[i].is_string() || !from || !n || *from < 0 || *n <= 0 || *from > INT32_MAX || *n > INT32_MAX) continue;
      out.push_back({of.items[i].text, *from, *n});
    }
  }
  std::ranges::sort(out, {}, [](const route::MediaSpan& m) { return std::pair(m.offset, m.hash); });
  return out;
}

Result<PromptTokens> read_tokens_answer(std::string_view body) {
  AnswerScan scan;
  BATON_OK(scan.run(body));
  if (!scan.found) return fail(Code::kInvalidArgument, "the answer has no token ids");
  const auto [from, to] = scan.features;
  if (to > from) scan.out.media = read_media_features(body.substr(from, to - from));
  return std::move(scan.out);
}

}  // namespace baton::picker
