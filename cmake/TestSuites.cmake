# One entry of ctest for each suite of GoogleTest. gtest_discover_tests makes one of each test, and loading libtorch takes half
# a second each time: with 1,300 tests a third of all that testing took.
if(CMAKE_SCRIPT_MODE_FILE)  # after the program was linked: EXECUTABLE's suites, into LIST
  execute_process(COMMAND ${EXECUTABLE} --gtest_list_tests OUTPUT_VARIABLE listed COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "(^|\n)[^ \n]+\\.( |\n)" suites "${listed}")
  set(tests "")
  # To its end: a suite of which one fails and the others are skipped has failed.
  set(all_skipped [==[PASSED  ] 0 tests\\.\n([[]  SKIPPED ][^\n]*\n)+$]==])
  foreach(suite ${suites})
    string(REGEX REPLACE "^\n|\\.[ \n]$" "" suite "${suite}")
    string(APPEND tests "add_test([==[${suite}]==] [==[${EXECUTABLE}]==] [==[--gtest_filter=${suite}.*]==])\n"
      "set_tests_properties([==[${suite}]==] PROPERTIES SKIP_REGULAR_EXPRESSION \"${all_skipped}\")\n")
  endforeach()
  file(WRITE ${LIST} "${tests}")
  return()
endif()

function(graft_discover_suites target)
  set(list ${CMAKE_CURRENT_BINARY_DIR}/${target}_suites.cmake)
  add_custom_command(TARGET ${target} POST_BUILD BYPRODUCTS ${list} VERBATIM
    COMMAND ${CMAKE_COMMAND} -D EXECUTABLE=$<TARGET_FILE:${target}> -D LIST=${list} -P ${CMAKE_SOURCE_DIR}/cmake/TestSuites.cmake)
  set(include ${CMAKE_CURRENT_BINARY_DIR}/${target}_include.cmake)
  file(WRITE ${include} "if(EXISTS [==[${list}]==])\n  include([==[${list}]==])\nelse()\n  add_test(${target}_NOT_BUILT ${target}_NOT_BUILT)\nendif()\n")
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${include})
endfunction()
