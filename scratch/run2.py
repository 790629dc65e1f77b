from zhao import *
path=sys.argv[1]; quick=len(sys.argv)>2
x,y,xt,yt=data(path,256 if quick else None,60 if quick else 784); out=os.environ.get('OUT','/tmp')
seeds=range(1 if quick else 5)
for H in (64,16):
    net=Trainable(fresh(H,64,1,'none',seeds)).to(dev)
    if not quick: net.load_state_dict(torch.load(f'scratch/float{H}.pt',map_location=dev))
    for name,a,s in (('A8x8',8,8),('A6x6',6,6)):
        q=Trainable(net.start,Precision(a=a,c=4,d=4,mix=4,enc=4,dec=4,state=s,act=6)).to(dev)
        load_state(net,q); q.calibrate(x[:256])
        print('PTQ',H,name,[round(v,2) for v in score(q,xt,yt)],flush=True)
        fit(q,x,y,xt,yt,1 if quick else 7,2e-3,5e-4,every=2,tag=f'qat{H}{name}')
        torch.save(q.state_dict(),f'{out}/qat{H}{name}.pt')
