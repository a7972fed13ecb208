// Statements.
#include "text/jinja/interpreter.h"

#include <algorithm>

namespace baton::text::jinja {

Interpreter::~Interpreter() {
  for (auto& ns : namespaces_) ns->attributes.clear();
}

Result<std::string> Interpreter::render(const Block& block) {
  std::string out;
  out_ = &out;
  scope_ = push_scope(nullptr);
  BATON_OK(run(block));
  return out;
}

Scope* Interpreter::push_scope(Scope* parent) { return &scopes_.emplace_back(Scope{parent, {}}); }

Result<> Interpreter::write(std::string_view text) {
  if (text.size() > kRenderBytesMax - std::min(out_->size(), kRenderBytesMax)) {
    return fail(Code::kResourceExhausted, "chat template writes more than ", kRenderBytesMax, " bytes");
  }
  BATON_OK(budget_.work(text.size()));
  *out_ += text;
  return {};
}

Result<std::string> Interpreter::captured(const Block& block) {
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  auto flow = run(block);
  out_ = outer;
  if (!flow) return std::unexpected(flow.error());
  return text;
}

Result<Interpreter::Flow> Interpreter::run(const Block& block) {
  for (const auto& s : block) {
    auto flow = run(*s);
    if (!flow) {
      // The innermost statement names its line; a template's own exception is passed on word for word.
      if (raised_ || flow.error().message.starts_with("line ")) return flow;
      return within(cat("line ", s->line), flow.error());
    }
    if (*flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::run(const Stmt& s) {
  BATON_OK(budget_.step());
  Depth level(depth_);
  if (depth_ > kRenderDepthMax) return fail(Code::kResourceExhausted, "chat template nests deeper than ", kRenderDepthMax);
  switch (s.kind) {
    case Stmt::Kind::kText:
      BATON_OK(write(s.text));
      return Flow::kNext;
    case Stmt::Kind::kOutput: {
      BATON_TRY(Value v, eval(*s.expr));
      if (v.string() != nullptr) {
        BATON_OK(write(*v.string()));
      } else {
        BATON_OK(budget_.work(v.weight()));
        BATON_OK(write(to_text(v)));
      }
      return Flow::kNext;
    }
    case Stmt::Kind::kIf:
      return run_if(s);
    case Stmt::Kind::kFor:
      return run_for(s);
    case Stmt::Kind::kSet:
    case Stmt::Kind::kSetBlock:
      BATON_OK(run_set(s));
      return Flow::kNext;
    case Stmt::Kind::kMacro:
      set(s.macro->name, Value(Value::Data(std::make_shared<const Callable>(Callable{
                             .kind = Callable::Kind::kMacro, .name = s.macro->name, .macro = s.macro.get(), .scope = scope_}))));
      return Flow::kNext;
    case Stmt::Kind::kCallBlock: {
      Value caller(Value::Data(std::make_shared<const Callable>(
          Callable{.kind = Callable::Kind::kMacro, .name = "caller", .macro = s.macro.get(), .scope = scope_})));
      BATON_TRY(Value callee, eval(*s.expr->args[0]));
      BATON_TRY(Args args, eval_args(*s.expr));
      args.keywords.emplace_back("caller", std::move(caller));
      BATON_TRY(Value v, call(callee, std::move(args)));
      BATON_OK(write(to_text(v)));
      return Flow::kNext;
    }
    case Stmt::Kind::kFilterBlock: {
      BATON_TRY(std::string text, captured(s.body));
      BATON_TRY(Value v, filtered(s.expr.get(), std::move(text)));
      BATON_OK(write(to_text(v)));
      return Flow::kNext;
    }
    case Stmt::Kind::kWith:
      return run_with(s);
    case Stmt::Kind::kScope:
      return run(s.body);
    case Stmt::Kind::kBreak:
      return Flow::kBreak;
    case Stmt::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::run_if(const Stmt& s) {
  for (const auto& [condition, block] : s.branches) {
    if (condition) {
      BATON_TRY(Value v, eval(*condition));
      if (!v.truthy()) continue;
    }
    return run(block);
  }
  return Flow::kNext;
}

Result<Interpreter::Flow> Interpreter::run_for(const Stmt& s) {
  BATON_TRY(Value subject, eval(*s.expr));
  BATON_TRY(std::vector<Value> items, iterate(budget_, subject));
  Scope* outer = scope_;
  Scope* inner = push_scope(outer);
  scope_ = inner;
  Flow end = Flow::kNext;
  auto body = [&]() -> Result<> {
    if (s.condition) {  // filtered first, so that loop.length and loop.last know
      std::vector<Value> kept;
      for (Value& item : items) {
        BATON_OK(budget_.step());
        inner->variables.clear();
        BATON_OK(assign(s.target, item));
        BATON_TRY(Value yes, eval(*s.condition));
        if (yes.truthy()) kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    BATON_TRY(Value list, Value::list(std::move(items)));
    auto loop = std::make_shared<Loop>();
    loop->items = *list.as<std::shared_ptr<const List>>();
    for (const Value& item : loop->items->items) {
      BATON_OK(budget_.step());
      inner->variables.clear();
      set("loop", Value(Value::Data(loop)));
      BATON_OK(assign(s.target, item));
      BATON_TRY(Flow flow, run(s.body));
      if (flow == Flow::kBreak) break;
      ++loop->index0;
    }
    inner->variables.clear();
    if (!loop->items->items.empty()) return {};
    BATON_TRY(end, run(s.otherwise));  // a break in here belongs to the loop outside
    return {};
  };
  auto done = body();
  scope_ = outer;
  if (!done) return std::unexpected(done.error());
  return end;
}

Result<Value> Interpreter::filtered(const Expr* chain, std::string text) {
  BATON_TRY(Value v, budget_.text(std::move(text)));
  if (chain == nullptr) return v;
  Scope* outer = scope_;
  scope_ = push_scope(outer);
  set(kBlockText, std::move(v));
  auto out = eval(*chain);
  scope_ = outer;
  return out;
}

Result<> Interpreter::run_set(const Stmt& s) {
  if (s.kind == Stmt::Kind::kSet) {
    BATON_TRY(Value v, eval(*s.expr));
    return assign(s.target, std::move(v));
  }
  Scope* outer = scope_;
  scope_ = push_scope(outer);  // what the block sets is its own
  auto text = captured(s.body);
  scope_ = outer;
  if (!text) return std::unexpected(text.error());
  BATON_TRY(Value v, filtered(s.expr.get(), *std::move(text)));
  return assign(s.target, std::move(v));
}

Result<Interpreter::Flow> Interpreter::run_with(const Stmt& s) {
  Scope* outer = scope_;
  Scope* inner = push_scope(outer);
  for (const auto& [target, expr] : s.assignments) {
    BATON_TRY(Value v, eval(*expr));  // outside the new scope
    inner->variables.emplace_back(target.names[0], std::move(v));
  }
  scope_ = inner;
  auto flow = run(s.body);
  scope_ = outer;
  return flow;
}

void Interpreter::set(std::string_view name, Value value) {
  for (auto& [n, v] : scope_->variables) {
    if (n == name) {
      v = std::move(value);
      return;
    }
  }
  scope_->variables.emplace_back(name, std::move(value));
}

Result<> Interpreter::assign(const Target& target, Value value) {
  if (!target.attribute.empty()) {
    Expr name;
    name.kind = Expr::Kind::kName;
    name.name = target.names[0];
    BATON_TRY(Value owner, eval_name(name));
    auto* ns = owner.as<std::shared_ptr<Namespace>>();
    if (ns == nullptr) return fail(Code::kInvalidArgument, "cannot assign attribute on non-namespace object ", target.names[0]);
    for (auto& [n, v] : (*ns)->attributes) {
      if (n == target.attribute) return v = std::move(value), Result<>();
    }
    (*ns)->attributes.emplace_back(target.attribute, std::move(value));
    return {};
  }
  if (!target.unpack) {
    set(target.names[0], std::move(value));
    return {};
  }
  BATON_OK(need_defined(value));
  BATON_TRY(std::vector<Value> parts, iterate(budget_, value));
  if (parts.size() != target.names.size()) {
    return fail(Code::kInvalidArgument, "cannot unpack ", parts.size(), " values into ", target.names.size(), " names");
  }
  for (size_t i = 0; i < parts.size(); ++i) set(target.names[i], std::move(parts[i]));
  return {};
}

}  // namespace baton::text::jinja
