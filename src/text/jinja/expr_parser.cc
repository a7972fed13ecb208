#include "text/jinja/expr_parser.h"

#include <algorithm>
#include <charconv>

namespace baton::text::jinja {

Result<ExprPtr> ExprParser::make(Expr::Kind kind, int line, std::string name) {
  BATON_OK(s_.count_node());
  auto e = std::make_unique<Expr>();
  e->kind = kind;
  e->line = line;
  e->name = std::move(name);
  return e;
}

// Chains such as a + b + c nest to the left without recursion here, so depth is counted in the tree too.
Result<> ExprParser::adopt(Expr& parent, ExprPtr child) {
  if (child) parent.depth = std::max(parent.depth, child->depth + 1);
  parent.args.push_back(std::move(child));
  if (parent.depth > kTemplateDepthMax) {
    return fail(Code::kResourceExhausted, "line ", parent.line, ": expression nested deeper than ", kTemplateDepthMax);
  }
  return {};
}

Result<ExprPtr> ExprParser::expression(bool with_ternary) {
  Nesting level(s_);
  BATON_OK(s_.enter());
  BATON_TRY(ExprPtr value, or_rule());
  while (with_ternary && s_.is_name("if")) {
    BATON_TRY(ExprPtr e, make(Expr::Kind::kTernary, s_.line()));
    s_.take();
    BATON_TRY(ExprPtr condition, or_rule());
    ExprPtr otherwise;
    if (s_.skip_name("else")) {
      BATON_TRY(otherwise, expression());
    }
    BATON_OK(adopt(*e, std::move(value)));
    BATON_OK(adopt(*e, std::move(condition)));
    BATON_OK(adopt(*e, std::move(otherwise)));
    value = std::move(e);
  }
  return value;
}

Result<ExprPtr> ExprParser::tuple(bool with_ternary) {
  int line = s_.line();
  BATON_TRY(ExprPtr first, expression(with_ternary));
  if (!s_.is_op(",")) return first;
  BATON_TRY(ExprPtr e, make(Expr::Kind::kTuple, line));
  BATON_OK(adopt(*e, std::move(first)));
  while (s_.skip_op(",")) {
    if (s_.is(Token::Kind::kBlockEnd) || s_.is(Token::Kind::kVariableEnd) || s_.is_op(")")) break;
    BATON_TRY(ExprPtr next, expression(with_ternary));
    BATON_OK(adopt(*e, std::move(next)));
  }
  return e;
}

Result<ExprPtr> ExprParser::logical(Expr::Kind kind, std::string_view word, Rule operand) {
  BATON_TRY(ExprPtr left, (this->*operand)());
  while (s_.is_name(word)) {
    BATON_TRY(ExprPtr e, make(kind, s_.line()));
    s_.take();
    BATON_TRY(ExprPtr right, (this->*operand)());
    BATON_OK(adopt(*e, std::move(left)));
    BATON_OK(adopt(*e, std::move(right)));
    left = std::move(e);
  }
  return left;
}

Result<ExprPtr> ExprParser::or_rule() { return logical(Expr::Kind::kOr, "or", &ExprParser::and_rule); }
Result<ExprPtr> ExprParser::and_rule() { return logical(Expr::Kind::kAnd, "and", &ExprParser::not_rule); }

Result<ExprPtr> ExprParser::not_rule() {
  if (!s_.is_name("not")) return compare_rule();
  Nesting level(s_);
  BATON_OK(s_.enter());
  BATON_TRY(ExprPtr e, make(Expr::Kind::kNot, s_.line()));
  s_.take();
  BATON_TRY(ExprPtr operand, not_rule());
  BATON_OK(adopt(*e, std::move(operand)));
  return e;
}

bool ExprParser::compare_operator(std::string& op) {
  for (std::string_view o : {"==", "!=", "<", "<=", ">", ">="}) {
    if (s_.is_op(o)) return op = s_.take().text, true;
  }
  if (s_.is_name("in")) return op = s_.take().text, true;
  if (s_.is_name("not") && s_.peek(1).kind == Token::Kind::kName && s_.peek(1).text == "in") {
    s_.take();
    s_.take();
    return op = "not in", true;
  }
  return false;
}

Result<ExprPtr> ExprParser::compare_rule() {
  int line = s_.line();
  BATON_TRY(ExprPtr left, sum_rule());
  ExprPtr e;
  for (std::string op; compare_operator(op);) {
    if (!e) {
      BATON_TRY(e, make(Expr::Kind::kCompare, line));
      BATON_OK(adopt(*e, std::move(left)));
    }
    BATON_TRY(ExprPtr right, sum_rule());
    e->operators.push_back(op);
    BATON_OK(adopt(*e, std::move(right)));
  }
  return e ? std::move(e) : std::move(left);
}

Result<ExprPtr> ExprParser::binary(std::initializer_list<std::string_view> operators, Rule operand) {
  BATON_TRY(ExprPtr left, (this->*operand)());
  while (std::ranges::any_of(operators, [&](std::string_view o) { return s_.is_op(o); })) {
    int line = s_.line();
    BATON_TRY(ExprPtr e, make(Expr::Kind::kBinary, line, s_.take().text));
    BATON_TRY(ExprPtr right, (this->*operand)());
    BATON_OK(adopt(*e, std::move(left)));
    BATON_OK(adopt(*e, std::move(right)));
    left = std::move(e);
  }
  return left;
}

Result<ExprPtr> ExprParser::sum_rule() { return binary({"+", "-"}, &ExprParser::concat_rule); }
Result<ExprPtr> ExprParser::product_rule() { return binary({"*", "/", "//", "%"}, &ExprParser::power_rule); }
Result<ExprPtr> ExprParser::power_rule() { return binary({"**"}, &ExprParser::unary_rule); }

Result<ExprPtr> ExprParser::concat_rule() {
  int line = s_.line();
  BATON_TRY(ExprPtr first, product_rule());
  if (!s_.is_op("~")) return first;
  BATON_TRY(ExprPtr e, make(Expr::Kind::kConcat, line));
  BATON_OK(adopt(*e, std::move(first)));
  while (s_.skip_op("~")) {
    BATON_TRY(ExprPtr next, product_rule());
    BATON_OK(adopt(*e, std::move(next)));
  }
  return e;
}

Result<ExprPtr> ExprParser::unary(bool with_filters) {
  ExprPtr e;
  if (s_.is_op("-") || s_.is_op("+")) {
    Nesting level(s_);
    BATON_OK(s_.enter());
    int line = s_.line();
    auto kind = s_.take().text == "-" ? Expr::Kind::kNegative : Expr::Kind::kPositive;
    BATON_TRY(e, make(kind, line));
    BATON_TRY(ExprPtr operand, unary(false));
    BATON_OK(adopt(*e, std::move(operand)));
  } else {
    BATON_TRY(e, primary());
  }
  BATON_TRY(e, postfix(std::move(e)));
  if (!with_filters) return e;
  for (;;) {
    if (s_.is_op("|")) {
      BATON_TRY(e, filters(std::move(e)));
    } else if (s_.is_name("is")) {
      BATON_TRY(e, test(std::move(e)));
    } else {
      return e;
    }
  }
}

Result<ExprPtr> ExprParser::primary() {
  int line = s_.line();
  if (s_.is(Token::Kind::kName)) {
    std::string name = s_.take().text;
    if (name == "true" || name == "True" || name == "false" || name == "False" || name == "none" || name == "None") {
      BATON_TRY(ExprPtr e, make(Expr::Kind::kConstant, line));
      e->constant = name == "none" || name == "None" ? Value::none() : Value::boolean(name == "true" || name == "True");
      return e;
    }
    return make(Expr::Kind::kName, line, std::move(name));
  }
  if (s_.is(Token::Kind::kString) || s_.is(Token::Kind::kInteger) || s_.is(Token::Kind::kFloat)) return literal();
  if (s_.skip_op("(")) return parenthesised();
  if (s_.skip_op("[")) return sequence(Expr::Kind::kList, "]");
  if (s_.skip_op("{")) return dict();
  return s_.unexpected("an expression");
}

Result<ExprPtr> ExprParser::literal() {
  BATON_TRY(ExprPtr e, make(Expr::Kind::kConstant, s_.line()));
  Token t = s_.take();
  if (t.kind == Token::Kind::kString) {
    while (s_.is(Token::Kind::kString)) t.text += s_.take().text;  // neighbours join
    e->constant = Value::string(std::move(t.text));
    return e;
  }
  const char *begin = t.text.data(), *end = begin + t.text.size();
  if (t.kind == Token::Kind::kFloat) {
    double d = 0;
    std::from_chars(begin, end, d);
    e->constant = Value::real(d);
    return e;
  }
  int64_t i = 0;
  if (std::from_chars(begin, end, i).ec != std::errc())
    return fail(Code::kInvalidArgument, "line ", t.line, ": number ", t.text, " is too large");
  e->constant = Value::integer(i);
  return e;
}

Result<ExprPtr> ExprParser::parenthesised() {
  int line = s_.line();
  if (s_.skip_op(")")) return make(Expr::Kind::kTuple, line);
  BATON_TRY(ExprPtr e, tuple());
  BATON_OK(s_.expect_op(")"));
  return e;
}

Result<ExprPtr> ExprParser::sequence(Expr::Kind kind, std::string_view close) {
  BATON_TRY(ExprPtr e, make(kind, s_.line()));
  while (!s_.skip_op(close)) {
    BATON_TRY(ExprPtr item, expression());
    BATON_OK(adopt(*e, std::move(item)));
    if (!s_.is_op(close)) BATON_OK(s_.expect_op(","));
  }
  return e;
}

Result<ExprPtr> ExprParser::dict() {
  BATON_TRY(ExprPtr e, make(Expr::Kind::kDict, s_.line()));
  while (!s_.skip_op("}")) {
    BATON_TRY(ExprPtr key, expression());
    BATON_OK(s_.expect_op(":"));
    BATON_TRY(ExprPtr value, expression());
    BATON_OK(adopt(*e, std::move(key)));
    BATON_OK(adopt(*e, std::move(value)));
    if (!s_.is_op("}")) BATON_OK(s_.expect_op(","));
  }
  return e;
}

Result<ExprPtr> ExprParser::postfix(ExprPtr subject) {
  for (;;) {
    int line = s_.line();
    ExprPtr e;
    if (s_.skip_op(".")) {
      if (s_.is(Token::Kind::kInteger)) {  // items.0
        BATON_TRY(e, make(Expr::Kind::kItem, line));
        BATON_OK(adopt(*e, std::move(subject)));
        BATON_TRY(ExprPtr index, literal());
        BATON_OK(adopt(*e, std::move(index)));
      } else {
        BATON_TRY(std::string name, s_.name());
        BATON_TRY(e, make(Expr::Kind::kAttribute, line, std::move(name)));
        BATON_OK(adopt(*e, std::move(subject)));
      }
    } else if (s_.skip_op("[")) {
      BATON_TRY(e, subscript(std::move(subject)));
    } else if (s_.skip_op("(")) {
      BATON_TRY(e, make(Expr::Kind::kCall, line));
      BATON_OK(adopt(*e, std::move(subject)));
      BATON_OK(arguments(*e));
    } else {
      return subject;
    }
    subject = std::move(e);
  }
}

Result<ExprPtr> ExprParser::subscript(ExprPtr subject) {
  int line = s_.line();
  ExprPtr parts[3];
  size_t n = 0;
  bool slice = false;
  while (!s_.is_op("]")) {
    if (s_.skip_op(":")) {
      slice = true;
      if (++n > 2) return s_.error("a slice has at most three parts");
    } else if (parts[n]) {
      return s_.unexpected("']'");
    } else {
      BATON_TRY(parts[n], slice ? expression() : tuple());
    }
  }
  BATON_OK(s_.expect_op("]"));
  if (!slice && !parts[0]) return s_.error("an empty subscript");
  BATON_TRY(ExprPtr e, make(slice ? Expr::Kind::kSlice : Expr::Kind::kItem, line));
  BATON_OK(adopt(*e, std::move(subject)));
  for (size_t i = 0; i < (slice ? 3u : 1u); ++i) BATON_OK(adopt(*e, std::move(parts[i])));
  return e;
}

Result<> ExprParser::arguments(Expr& call) {
  while (!s_.skip_op(")")) {
    if (s_.is_op("*") || s_.is_op("**")) return s_.error("* and ** arguments are not supported");
    if (s_.is(Token::Kind::kName) && s_.peek(1).kind == Token::Kind::kOperator && s_.peek(1).text == "=") {
      std::string name = s_.take().text;
      s_.take();
      BATON_TRY(ExprPtr value, expression());
      call.depth = std::max(call.depth, value->depth + 1);
      call.keywords.emplace_back(std::move(name), std::move(value));
    } else {
      if (!call.keywords.empty()) return s_.error("a positional argument after a keyword argument");
      BATON_TRY(ExprPtr value, expression());
      BATON_OK(adopt(call, std::move(value)));
    }
    if (!s_.is_op(")")) BATON_OK(s_.expect_op(","));
  }
  return {};
}

Result<ExprPtr> ExprParser::filters(ExprPtr subject) {
  while (s_.skip_op("|")) {
    BATON_TRY(subject, one_filter(std::move(subject)));
  }
  return subject;
}

Result<ExprPtr> ExprParser::first_filter(ExprPtr subject) {
  BATON_TRY(subject, one_filter(std::move(subject)));
  return filters(std::move(subject));
}

Result<ExprPtr> ExprParser::one_filter(ExprPtr subject) {
  int line = s_.line();
  BATON_TRY(std::string name, s_.name());
  BATON_TRY(ExprPtr e, make(Expr::Kind::kFilter, line, std::move(name)));
  BATON_OK(adopt(*e, std::move(subject)));
  if (s_.skip_op("(")) BATON_OK(arguments(*e));
  return e;
}

Result<ExprPtr> ExprParser::test(ExprPtr subject) {
  int line = s_.line();
  s_.take();  // "is"
  bool negated = s_.skip_name("not");
  BATON_TRY(std::string name, s_.name());
  BATON_TRY(ExprPtr e, make(Expr::Kind::kTest, line, std::move(name)));
  e->negated = negated;
  BATON_OK(adopt(*e, std::move(subject)));
  if (s_.skip_op("(")) {
    BATON_OK(arguments(*e));
    return e;
  }
  bool word = s_.is(Token::Kind::kName);
  for (std::string_view stop : {"else", "or", "and", "if", "is", "in", "not"}) word = word && !s_.is_name(stop);
  bool value =
      s_.is(Token::Kind::kString) || s_.is(Token::Kind::kInteger) || s_.is(Token::Kind::kFloat) || s_.is_op("[") || s_.is_op("{");
  if (word || value) {  // x is divisibleby 3
    BATON_TRY(ExprPtr argument, primary());
    BATON_TRY(argument, postfix(std::move(argument)));
    BATON_OK(adopt(*e, std::move(argument)));
  }
  return e;
}

}  // namespace baton::text::jinja
