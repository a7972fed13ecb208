#pragma once
// ExprParser: expressions, by recursive descent from the weakest binding (ternary) to the strongest (postfix).
#include <initializer_list>

#include "text/jinja/ast.h"
#include "text/jinja/token_stream.h"

namespace baton::text::jinja {

class ExprParser {
 public:
  explicit ExprParser(TokenStream& s) : s_(s) {}
  Result<ExprPtr> expression(bool with_ternary = true);
  // An expression, or several with commas between them: a tuple.
  Result<ExprPtr> tuple(bool with_ternary = true);
  // "| a | b(1)" applied to subject.
  Result<ExprPtr> filters(ExprPtr subject);
  // "a(1) | b" applied to subject: the first filter has no bar ({% filter a %}).
  Result<ExprPtr> first_filter(ExprPtr subject);
  Result<ExprPtr> make(Expr::Kind kind, int line, std::string name = {});
  Result<> adopt(Expr& parent, ExprPtr child);  // child may be null

 private:
  using Rule = Result<ExprPtr> (ExprParser::*)();
  Result<ExprPtr> or_rule();
  Result<ExprPtr> and_rule();
  Result<ExprPtr> not_rule();
  Result<ExprPtr> compare_rule();
  Result<ExprPtr> sum_rule();
  Result<ExprPtr> concat_rule();
  Result<ExprPtr> product_rule();
  Result<ExprPtr> power_rule();
  Result<ExprPtr> unary_rule() { return unary(true); }
  Result<ExprPtr> unary(bool with_filters);
  Result<ExprPtr> primary();
  Result<ExprPtr> literal();
  Result<ExprPtr> parenthesised();
  Result<ExprPtr> sequence(Expr::Kind kind, std::string_view close);
  Result<ExprPtr> dict();
  Result<ExprPtr> postfix(ExprPtr subject);
  Result<ExprPtr> subscript(ExprPtr subject);
  Result<ExprPtr> one_filter(ExprPtr subject);
  Result<ExprPtr> test(ExprPtr subject);
  Result<> arguments(Expr& call);
  Result<ExprPtr> logical(Expr::Kind kind, std::string_view word, Rule operand);
  Result<ExprPtr> binary(std::initializer_list<std::string_view> operators, Rule operand);
  bool compare_operator(std::string& op);

  TokenStream& s_;
};

}  // namespace baton::text::jinja
