#include "text/chat_template.h"

#include <algorithm>

#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"
#include "text/limits.h"
#include "text/unicode.h"

namespace baton::text {

using jinja::Block;
using jinja::Expr;
using jinja::Stmt;
using jinja::Value;

struct ChatTemplate::Impl {
  Block block;
  bool content_parts = false, harmony = false;
};

namespace {

// x.content, x['content'], with filters or slices around it, or a name that was set to one.
bool is_content(const Expr& e, const std::vector<std::string>& aliases) {
  switch (e.kind) {
    case Expr::Kind::kAttribute:
      return e.name == "content";
    case Expr::Kind::kItem: {
      const std::string* key = e.args[1]->constant.string();
      return key != nullptr && *key == "content";
    }
    case Expr::Kind::kName:
      return std::ranges::find(aliases, e.name) != aliases.end();
    case Expr::Kind::kFilter:
    case Expr::Kind::kSlice:
      return is_content(*e.args[0], aliases);
    default:
      return false;
  }
}

// True if some loop of the block runs over a message's content.
bool loops_over_content(const Block& block, std::vector<std::string>& aliases) {
  for (const auto& s : block) {
    if (s->kind == Stmt::Kind::kSet && s->target.attribute.empty() && is_content(*s->expr, aliases))
      aliases.push_back(s->target.names[0]);
    if (s->kind == Stmt::Kind::kFor && is_content(*s->expr, aliases)) return true;
    for (const auto& [condition, branch] : s->branches) {
      if (loops_over_content(branch, aliases)) return true;
    }
    if (loops_over_content(s->body, aliases) || loops_over_content(s->otherwise, aliases)) return true;
  }
  return false;
}

}  // namespace

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::compile(std::string_view source) {
  if (source.size() > kTemplateBytesMax) {
    return fail(Code::kResourceExhausted, "chat template of ", source.size(), " bytes is over the limit of ", kTemplateBytesMax);
  }
  if (first_invalid_utf8(source) < source.size()) return fail(Code::kInvalidArgument, "chat template is not valid UTF-8");
  auto block = jinja::parse(source);
  if (!block) return within("chat template", block.error());
  auto impl = std::make_unique<Impl>();
  impl->block = *std::move(block);
  std::vector<std::string> aliases;
  impl->content_parts = loops_over_content(impl->block, aliases);
  impl->harmony = source.find("<|channel|>analysis<|message|>") != std::string_view::npos;
  return ChatTemplate(std::move(impl));
}

Result<std::string> ChatTemplate::render(const Json& variables) const {
  if (!variables.is_object()) return fail(Code::kInvalidArgument, "chat template variables must be an object");
  BATON_TRY(Value values, Value::from_json(variables));
  jinja::Interpreter interpreter(values);
  return interpreter.render(impl_->block);
}

bool ChatTemplate::wants_content_parts() const { return impl_->content_parts; }
bool ChatTemplate::harmony() const { return impl_->harmony; }

}  // namespace baton::text
