// Tokenizer::from_hf: reads tokenizer.json and tokenizer_config.json. Format: facts sheet "engine" 4.1.
#include <algorithm>

#include "base/json.h"
#include "text/bpe_tokenizer.h"
#include "text/limits.h"
#include "text/unicode.h"

namespace baton::text {
namespace {

bool flag(const Json& o, std::string_view key) {
  const Json* v = o.find(key);
  return v != nullptr && v->as_bool().value_or(false);
}

std::string_view text_field(const Json& o, std::string_view key) {
  const Json* v = o.find(key);
  return v == nullptr ? std::string_view() : v->as_string().value_or("");
}

// "bos_token" and the like: a string or an added-token object.
std::string_view token_field(const Json& config, std::string_view key) {
  const Json* v = config.find(key);
  return v == nullptr ? std::string_view() : v->is_object() ? text_field(*v, "content") : v->as_string().value_or("");
}

class Loader {
 public:
  Result<BpeParts> load(const Json& root, const Json& config) {
    if (!root.is_object()) return fail(Code::kInvalidArgument, "tokenizer.json must be an object");
    const Json* model = root.find("model");
    if (model == nullptr || !model->is_object()) return fail(Code::kInvalidArgument, "tokenizer.json has no \"model\"");
    BATON_OK(check_model(*model));
    static const Json kNull;
    auto part = [&](std::string_view key) -> const Json& { return root.find(key) != nullptr ? *root.find(key) : kNull; };
    BATON_TRY(p_.normalizer, Normalizer::from_json(part("normalizer")));
    BATON_TRY(p_.pre_tokenizer, PreTokenizer::from_json(part("pre_tokenizer")));
    p_.bpe.byte_level = p_.pre_tokenizer.byte_level();
    BATON_OK(check_decoder(part("decoder")));
    BATON_OK(read_vocabulary(*model));
    BATON_OK(read_merges(*model));
    BATON_OK(read_added(part("added_tokens")));
    BATON_OK(read_unknown(*model));
    BATON_OK(read_post_processor(part("post_processor")));
    BATON_OK(read_config(config));
    return std::move(p_);
  }

 private:
  static std::unexpected<Error> unsupported(std::string_view what, std::string_view name) {
    return fail(Code::kUnimplemented, "tokenizer.json: ", what, ' ', json_string(name), " is not supported");
  }

  // Which of the two known ways output is made; it must fit the way input is read.
  Result<> check_decoder(const Json& spec) {
    std::string_view type = text_field(spec, "type");
    if (p_.bpe.byte_level) {
      if (type != "ByteLevel" && !spec.is_null()) return unsupported("a ByteLevel pre-tokenizer with the decoder", type);
      return {};
    }
    if (type == "Sequence") {
      const Json* list = spec.find("decoders");
      for (const Json& d : list != nullptr && list->is_array() ? list->items : std::vector<Json>()) {
        std::string_view t = text_field(d, "type");
        if (t == "Strip") p_.strip_first_space = true;
        if (t != "Replace" && t != "ByteFallback" && t != "Fuse" && t != "Strip") return unsupported("decoder", t);
      }
      return {};
    }
    if (type == "Metaspace") {
      p_.strip_first_space = text_field(spec, "prepend_scheme") != "never";
      return {};
    }
    return unsupported("decoder", spec.is_null() ? "null (without a ByteLevel pre-tokenizer)" : type);
  }

  Result<> check_model(const Json& model) {
    std::string_view type = text_field(model, "type");
    if (!type.empty() && type != "BPE") return unsupported("model", type);
    for (std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!text_field(model, key).empty()) return unsupported("model with", key);
    }
    if (const Json* d = model.find("dropout"); d != nullptr && d->as_double().value_or(0) > 0)
      return unsupported("model with", "dropout");
    p_.bpe.ignore_merges = flag(model, "ignore_merges");
    p_.bpe.byte_fallback = flag(model, "byte_fallback");
    p_.bpe.fuse_unknown = flag(model, "fuse_unk");
    return {};
  }

  Result<BpeParts::Entry*> entry_at(const Json& id, std::string_view token) {
    std::optional<int64_t> n = id.as_int();
    if (!n || *n < 0 || *n >= kVocabMax) {
      return fail(Code::kInvalidArgument, "tokenizer.json: token ", json_string(token), " has no id from 0 to ", kVocabMax - 1);
    }
    if (token.size() > kTokenBytesMax)
      return fail(Code::kResourceExhausted, "tokenizer.json: a token of ", token.size(), " bytes");
    auto at = static_cast<size_t>(*n);
    if (at >= p_.entries.size()) p_.entries.resize(at + 1);
    return &p_.entries[at];
  }

  // The form in which the model works and the output is written.
  std::string model_form(std::string_view token, bool* good = nullptr) {
    if (p_.bpe.byte_level) return bytes_of_alphabet(token, good);
    if (good != nullptr) *good = true;
    return std::string(token);
  }
  std::string output_bytes(std::string_view token) {
    return p_.bpe.byte_level ? bytes_of_alphabet(token) : bytes_of_piece(token);
  }

  Result<> read_vocabulary(const Json& model) {
    const Json* vocab = model.find("vocab");
    if (vocab == nullptr || !vocab->is_object())
      return fail(Code::kInvalidArgument, "tokenizer.json: model.vocab must be an object");
    p_.bpe.vocabulary.reserve(vocab->keys.size());
    for (size_t i = 0; i < vocab->keys.size(); ++i) {
      const std::string& token = vocab->keys[i];
      BATON_TRY(BpeParts::Entry * e, entry_at(vocab->items[i], token));
      if (!e->text.empty() && e->text != token) {
        return fail(Code::kInvalidArgument, "tokenizer.json: tokens ", json_string(e->text), " and ", json_string(token),
                    " share an id");
      }
      bool good = false;
      std::string form = model_form(token, &good);
      if (good) p_.bpe.vocabulary.insert_or_assign(std::move(form), static_cast<TokenId>(*vocab->items[i].as_int()));
      e->text = token;
      e->bytes = output_bytes(token);
    }
    return {};
  }

  Result<> read_merges(const Json& model) {
    const Json* merges = model.find("merges");
    if (merges == nullptr || !merges->is_array())
      return fail(Code::kInvalidArgument, "tokenizer.json: model.merges must be an array");
    p_.bpe.merges.reserve(merges->items.size());
    for (size_t i = 0; i < merges->items.size(); ++i) {
      const Json& m = merges->items[i];
      std::string_view left, right;
      if (m.is_string()) {  // "a b", the older form
        std::string_view s = m.text;
        if (size_t space = s.find(' '); space != std::string_view::npos && s.find(' ', space + 1) == std::string_view::npos) {
          left = s.substr(0, space), right = s.substr(space + 1);
        }
      } else if (m.is_array() && m.items.size() == 2) {
        left = m.items[0].as_string().value_or(""), right = m.items[1].as_string().value_or("");
      }
      bool good_left = false, good_right = false;
      std::string l = model_form(left, &good_left), r = model_form(right, &good_right);
      if (left.empty() || right.empty() || !good_left || !good_right) {
        return fail(Code::kInvalidArgument, "tokenizer.json: model.merges[", i, "] is not two symbols of the vocabulary");
      }
      p_.bpe.merges.emplace_back(std::move(l), std::move(r));
    }
    return {};
  }

  Result<> read_added(const Json& list) {
    if (list.is_null()) return {};
    if (!list.is_array()) return fail(Code::kInvalidArgument, "tokenizer.json: added_tokens must be an array");
    for (const Json& item : list.items) {
      std::string_view content = text_field(item, "content");
      const Json* id = item.find("id");
      if (content.empty() || id == nullptr)
        return fail(Code::kInvalidArgument, "tokenizer.json: an added token needs content and id");
      BATON_TRY(BpeParts::Entry * e, entry_at(*id, content));
      if (!e->text.empty() && e->text != content) {
        return fail(Code::kInvalidArgument, "tokenizer.json: added token ", json_string(content), " has the id of ",
                    json_string(e->text));
      }
      e->text = content;
      e->bytes = p_.bpe.byte_level ? std::string(content) : bytes_of_piece(content);  // Gemma adds runs of its space mark
      e->special = flag(item, "special");
      auto token = static_cast<TokenId>(*id->as_int());
      p_.added.push_back({.id = token,
                          .content = std::string(content),
                          .special = e->special,
                          .single_word = flag(item, "single_word"),
                          .lstrip = flag(item, "lstrip"),
                          .rstrip = flag(item, "rstrip"),
                          .normalized = flag(item, "normalized")});
      if (e->special && ends_turn(content)) add_stop(token);
    }
    return {};
  }

  TokenId id_of(std::string_view token) const {
    for (const AddedToken& a : p_.added) {
      if (a.content == token) return a.id;
    }
    for (size_t id = 0; id < p_.entries.size() && !token.empty(); ++id) {
      if (p_.entries[id].text == token) return static_cast<TokenId>(id);
    }
    return -1;
  }

  Result<> read_unknown(const Json& model) {
    std::string_view name = text_field(model, "unk_token");
    if (name.empty()) return {};
    p_.bpe.unknown = id_of(name);
    if (p_.bpe.unknown < 0)
      return fail(Code::kInvalidArgument, "tokenizer.json: unk_token ", json_string(name), " is not in the vocabulary");
    return {};
  }

  Result<> read_post_processor(const Json& spec) {
    std::string_view type = text_field(spec, "type");
    if (spec.is_null() || type == "ByteLevel") return {};  // ByteLevel only moves offsets
    if (type == "Sequence") {
      const Json* list = spec.find("processors");
      if (list == nullptr || !list->is_array())
        return fail(Code::kInvalidArgument, "tokenizer.json: post-processor Sequence needs \"processors\"");
      for (const Json& item : list->items) BATON_OK(read_post_processor(item));
      return {};
    }
    if (type == "TemplateProcessing") return read_template(spec);
    return unsupported("post-processor", type);
  }

  Result<> read_template(const Json& spec) {
    const Json* single = spec.find("single");
    if (single == nullptr || !single->is_array())
      return fail(Code::kInvalidArgument, "tokenizer.json: TemplateProcessing needs \"single\"");
    std::vector<TokenId> before, after;
    bool seen = false;
    for (const Json& item : single->items) {
      if (item.find("Sequence") != nullptr) {
        if (seen) return unsupported("TemplateProcessing", "with the sequence twice");
        seen = true;
        continue;
      }
      const Json* name = item.find_path({"SpecialToken", "id"});
      const Json* known = spec.find("special_tokens");
      const Json* ids = name != nullptr && known != nullptr ? known->find_path({name->text, "ids"}) : nullptr;
      if (ids == nullptr || !ids->is_array())
        return fail(Code::kInvalidArgument, "tokenizer.json: TemplateProcessing names a token without ids");
      for (const Json& id : ids->items) {
        std::optional<int64_t> n = id.as_int();
        if (!n || *n < 0 || *n >= static_cast<int64_t>(p_.entries.size())) {
          return fail(Code::kInvalidArgument, "tokenizer.json: TemplateProcessing has an id outside the vocabulary");
        }
        (seen ? after : before).push_back(static_cast<TokenId>(*n));
      }
    }
    if (!seen) return unsupported("TemplateProcessing", "without the sequence");
    p_.prefix.insert(p_.prefix.begin(), before.begin(), before.end());  // a later processor of a Sequence wraps the earlier
    p_.suffix.insert(p_.suffix.end(), after.begin(), after.end());
    return {};
  }

  // tokenizer_config.json: names of BOS and EOS; the Llama tokenizer classes also rewrite the post-processor from add_*_token.
  Result<> read_config(const Json& config) {
    if (config.is_null()) return {};
    if (!config.is_object()) return fail(Code::kInvalidArgument, "tokenizer_config.json must be an object");
    p_.bos = id_of(token_field(config, "bos_token"));
    p_.eos = id_of(token_field(config, "eos_token"));
    if (p_.eos >= 0) add_stop(p_.eos);
    std::string_view type = text_field(config, "tokenizer_class");
    if (type != "LlamaTokenizer" && type != "LlamaTokenizerFast") return {};
    auto wrap = [&](std::string_view key, TokenId id, std::vector<TokenId>& ids) {
      if (const Json* add = config.find(key); add != nullptr && add->is_bool()) {
        ids.clear();
        if (add->boolean && id >= 0) ids.push_back(id);
      }
    };
    wrap("add_bos_token", p_.bos, p_.prefix);
    wrap("add_eos_token", p_.eos, p_.suffix);
    return {};
  }

  void add_stop(TokenId id) {
    if (std::ranges::find(p_.stop_ids, id) == p_.stop_ids.end()) p_.stop_ids.push_back(id);
  }

  BpeParts p_;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_hf(std::string_view tokenizer_json, std::string_view tokenizer_config_json) {
  JsonLimits limits{.bytes_max = kTokenizerJsonBytesMax, .depth_max = 32};
  auto root = parse_json(tokenizer_json, limits);
  if (!root) return within("tokenizer.json", root.error());
  Json config;
  if (!tokenizer_config_json.empty()) {
    auto parsed = parse_json(tokenizer_config_json, limits);
    if (!parsed) return within("tokenizer_config.json", parsed.error());
    config = *std::move(parsed);
  }
  BATON_TRY(BpeParts parts, Loader().load(*root, config));
  auto tokenizer = BpeTokenizer::build(std::move(parts));
  if (!tokenizer) return within("tokenizer.json", tokenizer.error());
  return tokenizer;
}

}  // namespace baton::text
