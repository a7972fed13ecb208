// Interpreter, expressions.
#include <algorithm>

#include "text/jinja/interpreter.h"

namespace baton::text::jinja {

Result<Value> Interpreter::eval(const Expr& e) {
  BATON_OK(budget_.step());
  Depth level(depth_);
  if (depth_ > kRenderDepthMax) return fail(Code::kResourceExhausted, "chat template nests deeper than ", kRenderDepthMax);
  switch (e.kind) {
    case Expr::Kind::kConstant:
      return e.constant;
    case Expr::Kind::kName:
      return eval_name(e);
    case Expr::Kind::kList:
    case Expr::Kind::kTuple:
      return eval_sequence(e);
    case Expr::Kind::kDict:
      return eval_dict(e);
    case Expr::Kind::kAttribute:
    case Expr::Kind::kItem:
    case Expr::Kind::kSlice:
      return eval_access(e);
    case Expr::Kind::kCall:
      return eval_call(e);
    case Expr::Kind::kFilter: {
      BATON_TRY(Value subject, eval(*e.args[0]));
      BATON_TRY(Args args, eval_args(e));
      return call_filter(budget_, e.name, subject, args);
    }
    case Expr::Kind::kTest: {
      BATON_TRY(Value subject, eval(*e.args[0]));
      BATON_TRY(Args args, eval_args(e));
      BATON_TRY(bool yes, call_test(budget_, e.name, subject, args));
      return Value::boolean(yes != e.negated);
    }
    case Expr::Kind::kNot: {
      BATON_TRY(Value v, eval(*e.args[0]));
      return Value::boolean(!v.truthy());
    }
    case Expr::Kind::kNegative:
    case Expr::Kind::kPositive:
      return eval_sign(e);
    case Expr::Kind::kBinary: {
      BATON_TRY(Value a, eval(*e.args[0]));
      BATON_TRY(Value b, eval(*e.args[1]));
      return binary(budget_, e.name, a, b);
    }
    case Expr::Kind::kConcat:
      return eval_concat(e);
    case Expr::Kind::kAnd:
    case Expr::Kind::kOr:
    case Expr::Kind::kTernary:
      return eval_branch(e);
    case Expr::Kind::kCompare:
      return eval_compare(e);
  }
  return Value();
}

Result<Value> Interpreter::eval_name(const Expr& e) {
  for (const Scope* s = scope_; s != nullptr; s = s->parent) {
    for (const auto& [name, value] : s->variables) {
      if (name == e.name) return value;
    }
  }
  if (const Value* v = globals_.dict() != nullptr ? globals_.dict()->find(e.name) : nullptr) return *v;
  if (has_function(e.name)) {
    return Value(Value::Data(std::make_shared<const Callable>(Callable{.kind = Callable::Kind::kFunction, .name = e.name})));
  }
  return Value::undefined(cat("'", e.name, "' is undefined"));
}

Result<Value> Interpreter::eval_sequence(const Expr& e) {
  std::vector<Value> items;
  for (const ExprPtr& item : e.args) {
    BATON_TRY(Value v, eval(*item));
    items.push_back(std::move(v));
  }
  return budget_.list(std::move(items), e.kind == Expr::Kind::kTuple);
}

Result<Value> Interpreter::eval_dict(const Expr& e) {
  std::vector<std::pair<Value, Value>> items;
  for (size_t i = 0; i + 1 < e.args.size(); i += 2) {
    BATON_TRY(Value key, eval(*e.args[i]));
    BATON_TRY(Value value, eval(*e.args[i + 1]));
    items.emplace_back(std::move(key), std::move(value));
  }
  BATON_OK(budget_.work(items.size() * sizeof(items[0])));
  return Value::dict(std::move(items));
}

Result<Value> Interpreter::eval_access(const Expr& e) {
  BATON_TRY(Value subject, eval(*e.args[0]));
  if (e.kind == Expr::Kind::kAttribute) return get_attribute(subject, e.name);
  Value parts[3] = {Value::none(), Value::none(), Value::none()};
  for (size_t i = 1; i < e.args.size(); ++i) {
    if (!e.args[i]) continue;
    BATON_TRY(parts[i - 1], eval(*e.args[i]));
  }
  if (e.kind == Expr::Kind::kItem) return get_item(budget_, subject, parts[0]);
  return get_slice(budget_, subject, parts[0], parts[1], parts[2]);
}

Result<Value> Interpreter::eval_compare(const Expr& e) {
  BATON_TRY(Value left, eval(*e.args[0]));
  for (size_t i = 0; i < e.operators.size(); ++i) {
    const std::string& op = e.operators[i];
    BATON_TRY(Value right, eval(*e.args[i + 1]));
    bool yes = false;
    if (op == "in" || op == "not in") {
      BATON_TRY(bool inside, contains(budget_, right, left));
      yes = inside == (op == "in");
    } else {
      BATON_OK(budget_.work(std::min(left.weight(), right.weight())));
      if (op == "==" || op == "!=") {
        yes = equal(left, right) == (op == "==");
      } else {
        BATON_OK(need_defined(left));
        BATON_OK(need_defined(right));
        BATON_TRY(int order, compare(left, right));
        yes = op == "<" ? order < 0 : op == "<=" ? order <= 0 : op == ">" ? order > 0 : order >= 0;
      }
    }
    if (!yes) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Result<Value> Interpreter::eval_concat(const Expr& e) {
  std::string out;
  for (const ExprPtr& part : e.args) {
    BATON_TRY(Value v, eval(*part));
    BATON_OK(budget_.work(v.weight()));
    out += to_text(v);
  }
  return budget_.text(std::move(out));
}

Result<Value> Interpreter::eval_sign(const Expr& e) {
  BATON_TRY(Value v, eval(*e.args[0]));
  if (auto* d = v.as<double>()) return Value::real(e.kind == Expr::Kind::kNegative ? -*d : *d);
  return binary(budget_, e.kind == Expr::Kind::kNegative ? "-" : "+", Value::integer(0), v);
}

Result<Value> Interpreter::eval_branch(const Expr& e) {
  if (e.kind == Expr::Kind::kTernary) {
    BATON_TRY(Value condition, eval(*e.args[1]));
    if (condition.truthy()) return eval(*e.args[0]);
    if (e.args[2]) return eval(*e.args[2]);
    return Value::undefined("the inline if-expression evaluated to false and no else section was defined.");
  }
  BATON_TRY(Value left, eval(*e.args[0]));
  if (left.truthy() == (e.kind == Expr::Kind::kOr)) return left;  // Python gives the operand, not its truth
  return eval(*e.args[1]);
}

Result<Args> Interpreter::eval_args(const Expr& e) {
  Args args;
  for (size_t i = 1; i < e.args.size(); ++i) {
    BATON_TRY(Value v, eval(*e.args[i]));
    args.positional.push_back(std::move(v));
  }
  for (const auto& [name, expr] : e.keywords) {
    BATON_TRY(Value v, eval(*expr));
    args.keywords.emplace_back(name, std::move(v));
  }
  return args;
}

Result<Value> Interpreter::eval_call(const Expr& e) {
  const Expr& callee = *e.args[0];
  if (callee.kind == Expr::Kind::kAttribute) {  // the usual x.method(): no bound method is made
    BATON_TRY(Value self, eval(*callee.args[0]));
    BATON_TRY(Args args, eval_args(e));
    if (has_method(self, callee.name)) return call_method(budget_, self, callee.name, args);
    BATON_TRY(Value found, get_attribute(self, callee.name));
    return call(found, std::move(args));
  }
  BATON_TRY(Value found, eval(callee));
  BATON_TRY(Args args, eval_args(e));
  return call(found, std::move(args));
}

Result<Value> Interpreter::call(const Value& callee, Args args) {
  BATON_OK(need_defined(callee));
  auto* c = callee.as<std::shared_ptr<const Callable>>();
  if (c == nullptr) return fail(Code::kInvalidArgument, "'", callee.type_name(), "' object is not callable");
  switch ((*c)->kind) {
    case Callable::Kind::kMethod:
      return call_method(budget_, *(*c)->self, (*c)->name, args);
    case Callable::Kind::kMacro:
      return call_macro(**c, std::move(args));
    case Callable::Kind::kFunction:
      break;
  }
  auto result = call_function(budget_, (*c)->name, args);
  if (!result) {
    raised_ = (*c)->name == "raise_exception" && args.positional.size() + args.keywords.size() == 1;
  } else if (auto* ns = result->as<std::shared_ptr<Namespace>>()) {
    namespaces_.push_back(*ns);
  }
  return result;
}

Result<Value> Interpreter::call_macro(const Callable& callee, Args args) {
  const Macro& macro = *callee.macro;
  if (args.positional.size() > macro.parameters.size()) {
    return fail(Code::kInvalidArgument, "macro '", macro.name, "' takes not more than ", macro.parameters.size(), " argument(s)");
  }
  Scope* outer = scope_;
  scope_ = push_scope(callee.scope);
  auto body = [&]() -> Result<std::string> {
    size_t first_default = macro.parameters.size() - macro.defaults.size();
    for (auto& [name, value] : args.keywords) {
      if (name != "caller" && std::ranges::find(macro.parameters, name) == macro.parameters.end()) {
        return fail(Code::kInvalidArgument, "macro '", macro.name, "' takes no keyword argument '", name, "'");
      }
      set(name, std::move(value));
    }
    for (size_t i = 0; i < macro.parameters.size(); ++i) {
      const std::string& name = macro.parameters[i];
      bool given = std::ranges::any_of(args.keywords, [&](const auto& k) { return k.first == name; });
      if (i < args.positional.size()) {
        if (given) return fail(Code::kInvalidArgument, "macro '", macro.name, "' got two values for '", name, "'");
        set(name, std::move(args.positional[i]));
      } else if (!given && i >= first_default) {
        BATON_TRY(Value v, eval(*macro.defaults[i - first_default]));
        set(name, std::move(v));
      } else if (!given) {
        set(name, Value::undefined(cat("parameter '", name, "' was not provided")));
      }
    }
    return captured(macro.body);
  };
  auto text = body();
  scope_ = outer;
  if (!text) return std::unexpected(text.error());
  return budget_.text(*std::move(text));
}

}  // namespace baton::text::jinja
