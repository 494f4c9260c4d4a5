def test_x(artifact, start, tmp_path, tiny_model):
    import time
    t=time.time()
    r=start("build", tiny_model, "-o", tmp_path/"x", "--max-memory", "25%", "--max-drop", "5%", "--effort", "quick")
    print(r.code(), time.time()-t, r.err.read_text()[-1500:], r.out.read_text()[-1500:])
    t=time.time()
    r=start("build", tiny_model, "-o", tmp_path/"y", "--max-memory", "25%", "--max-drop", "5%", "--effort", "quick")
    print(r.code(), time.time()-t, r.err.read_text()[-300:], r.out.read_text()[-500:])
