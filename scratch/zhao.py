import sys,time,math,json,os,torch,numpy as np
from torch.nn import functional as F
sys.path.insert(0,os.getcwd())
from ssm.layers import Classifier
from ssm.train import to_model
from ssm.trainable import Trainable
from ssm.quantize import Precision
dev='cuda' if torch.cuda.is_available() else 'cpu'
torch.backends.cuda.matmul.allow_tf32=False
def data(path,limit=None,length=784):
    f=np.load(path)
    def prep(x): return torch.tensor(x.reshape(len(x),-1,1)[:, :length],dtype=torch.float32,device=dev)/255
    n=limit
    return prep(f['x_train'][:n]),torch.tensor(f['y_train'][:n].astype(np.int64),device=dev),prep(f['x_test'][:n]),torch.tensor(f['y_test'][:n].astype(np.int64),device=dev)
def fresh(H,N,L,norm,seeds):
    out=[]
    for s in seeds:
        torch.manual_seed(s)
        out.append(to_model(Classifier(1,10,n_heads=H,n_states=N,n_layers=L,norm=norm)))
    return out
@torch.no_grad()
def score(net,x,y,b=250):
    net.eval(); r=0
    for i in range(0,len(x),b): r=r+(net(x[i:i+b]).argmax(-1)==y[i:i+b,None]).sum(0)
    net.train(); return (100*r/len(x)).tolist()
def fit(net,x,y,xt,yt,epochs,lr,klr,batch=64,slr=None,wd=0.01,clip=1.0,every=1,tag=''):
    kp=net.kernel_parameters(); ids={id(p) for p in kp}
    st=[p for n,p in net.named_parameters() if n.endswith('step.log')]; sid={id(p) for p in st}
    rest=[p for p in net.parameters() if id(p) not in ids and id(p) not in sid]
    opt=torch.optim.AdamW([{'params':rest,'lr':lr,'weight_decay':wd},{'params':kp,'lr':klr,'weight_decay':0.},{'params':st,'lr':slr or lr,'weight_decay':0.}])
    n=len(x); total=epochs*(n//batch)
    sch=torch.optim.lr_scheduler.OneCycleLR(opt,[g['lr'] for g in opt.param_groups],total_steps=max(total,2),pct_start=0.1,cycle_momentum=False)
    R=net.encoder_weight.shape[0]
    for e in range(epochs):
        t0=time.time(); perm=torch.randperm(n,device=dev); tot=0
        for i in range(0,n-batch+1,batch):
            rows=perm[i:i+batch]
            out=net(x[rows])
            loss=F.cross_entropy(out.flatten(0,1),y[rows].repeat_interleave(R),reduction='sum')/batch
            opt.zero_grad(set_to_none=True); loss.backward()
            # clip per run
            with torch.no_grad():
                sq=sum((p.grad.reshape(R,-1)**2).sum(1) for p in net.parameters() if p.grad is not None)
                f=(clip/(sq.sqrt()+1e-6)).clamp(max=1.0)
                for p in net.parameters():
                    if p.grad is not None: p.grad.mul_(f.view(R,*[1]*(p.dim()-1)))
            opt.step(); sch.step(); tot+=loss.detach()
        if dev=='cuda': torch.cuda.synchronize()
        dt=time.time()-t0
        if (e+1)%every==0 or e==epochs-1:
            print(tag,e+1,'loss %.4f'%(tot.item()/(n//batch)/R),'%.1f s'%dt,'test',[round(v,2) for v in score(net,xt,yt)],flush=True)
def load_state(src,dst):
    dst.load_state_dict({k:v for k,v in src.state_dict().items()},strict=False)
