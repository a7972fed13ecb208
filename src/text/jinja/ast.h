#pragma once
// The compiled form of a chat template: a tree of statements and expressions. Depth is bounded by kTemplateDepthMax and the
// number of nodes by kTemplateNodesMax (parser.cc), so walking and destroying it by recursion is safe. Immutable after parsing:
// any thread.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace baton::text::jinja {

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using Block = std::vector<std::unique_ptr<Stmt>>;

struct Expr {
  enum class Kind : uint8_t {
    kConstant,   // constant
    kName,       // name
    kList,       // args
    kTuple,      // args
    kDict,       // args: key, value, key, value ...
    kAttribute,  // args[0].name
    kItem,       // args[0][args[1]]
    kSlice,      // args[0][args[1]:args[2]:args[3]], absent parts null
    kCall,       // args[0](args[1..], keywords)
    kFilter,     // args[0] | name(args[1..], keywords)
    kTest,       // args[0] is name(args[1..]); negated: is not
    kNot,        // not args[0]
    kNegative,   // -args[0]
    kPositive,   // +args[0]
    kBinary,     // args[0] name args[1], name one of + - * / // % **
    kConcat,     // args joined as text
    kAnd,        // args[0] and args[1]
    kOr,
    kCompare,  // args[0] operators[0] args[1] operators[1] args[2] ...
    kTernary,  // args[0] if args[1] else args[2] (null: undefined)
  } kind;
  int line = 0;
  int depth = 1;
  bool negated = false;
  std::string name;
  Value constant;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  std::vector<std::string> operators;
};

// What an assignment or a for loop writes to: a name, a namespace attribute, or several names.
struct Target {
  std::vector<std::string> names;
  std::string attribute;  // "" unless names[0].attribute
  bool unpack = false;    // names is a tuple
};

struct Macro {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Block body;
};

struct Stmt {
  enum class Kind : uint8_t {
    kText,         // text
    kOutput,       // expr
    kIf,           // branches; the last may have a null condition
    kFor,          // target in expr if condition: body else otherwise
    kSet,          // target = expr
    kSetBlock,     // target = body, through the filter chain expr (null: none)
    kMacro,        // macro
    kCallBlock,    // expr is a call; macro is its caller()
    kFilterBlock,  // body through the filter chain expr
    kWith,         // assignments around body
    kScope,        // body as it is ({% generation %})
    kBreak,
    kContinue,
  } kind;
  int line = 0;
  std::string text;
  Target target;
  ExprPtr expr, condition;
  Block body, otherwise;
  std::vector<std::pair<ExprPtr, Block>> branches;
  std::vector<std::pair<Target, ExprPtr>> assignments;
  std::shared_ptr<Macro> macro;
};

// Name under which a filter chain finds the text it filters ({% set x | trim %}); no template can spell it.
inline constexpr std::string_view kBlockText = "{block}";

}  // namespace baton::text::jinja
