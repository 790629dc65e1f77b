from zhao import *
path=sys.argv[1]; quick=len(sys.argv)>2
x,y,xt,yt=data(path,256 if quick else None,60 if quick else 784)
out=os.environ.get('OUT','/tmp')
H=64
if dev=='cuda':
    # speed of the kernel alone
    from ssm.recurrence import recur
    for R in (1,5):
        u=torch.randn(64,784,64*R,device=dev,requires_grad=True); m=torch.rand(64*R,32,2,2,device=dev)*.4; m.requires_grad_(); c=torch.randn(64*R,32,2,device=dev,requires_grad=True); s=torch.full((64*R,32,2),.01,device=dev,requires_grad=True)
        for k in range(3):
            torch.cuda.synchronize(); t=time.time(); yy=recur(u,m,c,s,8); torch.cuda.synchronize(); t1=time.time(); yy.sum().backward(); torch.cuda.synchronize(); print('kernel R',R,'fwd %.2f ms bwd %.2f ms'%(1e3*(t1-t),1e3*(time.time()-t1)),flush=True)
seeds=range(1 if quick else 5)
for H,fe,qe in ((64,14,6),(16,16,6)):
    net=Trainable(fresh(H,64,1,'none',seeds)).to(dev)
    fit(net,x,y,xt,yt,1 if quick else fe,1e-2 if H==64 else 1.5e-2,2e-3,every=2,tag=f'float{H}')
    torch.save(net.state_dict(),f'{out}/float{H}.pt')
    for name,a,s in (('A8x8',8,8),('A6x6',6,6)):
        q=Trainable(net.start,Precision(a=a,c=4,d=4,mix=4,enc=4,dec=4,state=s,act=6)).to(dev)
        load_state(net,q); q.calibrate(x[:256])
        print('PTQ',H,name,score(q,xt,yt),flush=True)
        fit(q,x,y,xt,yt,1 if quick else qe,2e-3,5e-4,every=2,tag=f'qat{H}{name}')
        torch.save(q.state_dict(),f'{out}/qat{H}{name}.pt')
