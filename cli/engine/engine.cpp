extern "C" int graft_engine_stub() { return 0; }
