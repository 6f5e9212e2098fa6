#include "graft/io/toml.h"

#include <gtest/gtest.h>

#include <cmath>

#include "graft/core/error.h"
#include "tests/fixtures.h"

namespace graft::io {
namespace {

using tests::message_of;

TEST(Toml, BecomesJsonInTheOrderOfTheText) {
  const auto json =
      parse_toml("z = 1\na = [1.5, \"x\", true]\n[head]\nlr = 1e-3\n[head.inner]\nday = 2024-01-31\n", "r.toml");
  EXPECT_EQ(json.dump(), R"({"z":1,"a":[1.5,"x",true],"head":{"lr":0.001,"inner":{"day":"2024-01-31"}}})");
}

TEST(Toml, MistakesNameFileLineAndColumn) {
  const auto message = message_of([] { parse_toml("a = 1\nb = = 2\n", "recipe.toml"); });
  EXPECT_TRUE(message.starts_with("recipe.toml:2:5: ")) << message;
  try {
    parse_toml("a = 1\na = 2", "r");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind, Kind::usage);
    EXPECT_TRUE(std::string(e.what()).starts_with("r:2:")) << e.what();
  }
}

TEST(Toml, WhatIsWrittenIsReadAlike) {
  const Json json{{"name", "a \"b\" \\ \n\t\x7f ü"},
                  {"whole", -3},
                  {"real", 0.1},
                  {"large", 1e300},
                  {"round", 2.0},
                  {"yes", true},
                  {"list", {1, 2}},
                  {"empty", Json::array()},
                  {"section", {{"odd key", 1}, {"inner", {{"x", "y"}}}}},
                  {"tables", Json::array({{{"a", 1}}, {{"a", 2}}})}};
  const auto text = write_toml(json);
  const auto again = parse_toml(text, "again");
  for (const auto& item : json.items()) EXPECT_EQ(again.at(item.key()), item.value()) << text;
  EXPECT_TRUE(again["round"].is_number_float()) << text;
  EXPECT_EQ(write_toml(again), write_toml(parse_toml(write_toml(again), "third")));
}

TEST(Toml, NullsAreLeftOutAndInfinityIsKept) {
  EXPECT_EQ(write_toml({{"a", nullptr}, {"b", 1}, {"c", INFINITY}}), "b = 1\nc = inf\n");
  EXPECT_TRUE(std::isinf(parse_toml("c = inf", "")["c"].get<double>()));
  EXPECT_EQ(write_toml({{"a", {{"b", {{"c", 1}}}}}}), "[a]\n\n[a.b]\nc = 1\n");
  EXPECT_NE(message_of([] { write_toml(7); }).find("TOML is a table, this is 7"), std::string::npos);
}

}  // namespace
}  // namespace graft::io
